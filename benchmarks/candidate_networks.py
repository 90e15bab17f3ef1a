"""Networks that compete in vovdet_candidates.py: VoVDet with other parts, and YOLOX-nano's plan.

`OSADetector` takes VoVDet apart: which convolutions its OSA modules, neck and heads are made of.
`CSPDetector` is the yardstick from outside, built after YOLOX's description (arXiv 2107.08430) and
CSPNet's (arXiv 1911.11929), with VoVDet's predictions at the end so that both are trained alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vovnet.models.layers import (
    ConvNorm,
    EffectiveSqueezeExcite,
    SeparableConvNorm,
    init_weights,
)
from vovnet.models.vovdet import VoVDetOutput

Unit = Callable[[int, int], nn.Module]
Activation = Literal["relu", "silu", "hardswish"]


class PartialConvNorm(nn.Module):
    """A 3×3 over the first quarter of the channels, then a 1×1 over all (FasterNet, 2303.03667)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        part = in_channels // 4
        self.sizes = (part, in_channels - part)
        self.conv = nn.Conv2d(part, part, 3, padding=1, bias=False)
        self.mix = ConvNorm(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x.split(self.sizes, 1)
        return self.mix(torch.cat([self.conv(first), rest], 1))


class DeepConvNorm(nn.Module):
    """Depthwise 3×3 with its own norm and activation, then a 1×1 with norm and activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.spread = ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels)
        self.mix = ConvNorm(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.spread(x))


def separable5(in_channels: int, out_channels: int) -> nn.Module:
    """`SeparableConvNorm` with a 5×5."""
    spread = nn.Conv2d(in_channels, in_channels, 5, padding=2, groups=in_channels, bias=False)
    return nn.Sequential(spread, ConvNorm(in_channels, out_channels, 1))


def grouped(in_channels: int, out_channels: int) -> nn.Module:
    """A 3×3 in groups of 16 channels, as many as a vector of AVX-512 holds."""
    return ConvNorm(in_channels, out_channels, groups=math.gcd(in_channels, out_channels) // 16)


UNITS: dict[str, Unit] = {
    "dense": ConvNorm,
    "depthwise": SeparableConvNorm,
    "depthwise5": separable5,
    "deep": DeepConvNorm,
    "partial": PartialConvNorm,
    "grouped": grouped,
}


class OSA(nn.Module):
    """One-Shot Aggregation of any units; all but dense ones get a 1×1 to their width first."""

    def __init__(
        self,
        in_channels: int,
        mid: int,
        out: int,
        layers: int,
        kind: str,
        identity: bool = False,
        ese: bool = False,
    ) -> None:
        super().__init__()
        dense = kind == "dense"
        self.reduce = (
            nn.Identity() if dense or in_channels == mid else ConvNorm(in_channels, mid, 1)
        )
        self.units = nn.ModuleList(
            UNITS[kind](in_channels if dense and i == 0 else mid, mid) for i in range(layers)
        )
        self.join = ConvNorm(in_channels + layers * mid, out, 1)
        self.gate = EffectiveSqueezeExcite(out) if ese else nn.Identity()
        self.identity = identity and in_channels == out

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        y = self.reduce(x)
        for unit in self.units:
            y = unit(y)
            features.append(y)
        y = self.gate(self.join(torch.cat(features, 1)))
        return y + x if self.identity else y


@dataclass(frozen=True)
class OSAPlan:
    """What a VoVDet is made of, today's nano unless said otherwise; units are `UNITS`.

    Tuples have an entry for each of the strides 4, 8, 16 and 32.
    """

    stem: tuple[int, int] = (24, 48)
    mid: tuple[int, ...] = (24, 64, 80, 96)
    out: tuple[int, ...] = (64, 128, 256, 320)
    modules: tuple[int, ...] = (1, 1, 2, 1)
    layers: tuple[int, ...] = (3, 3, 3, 3)
    units: tuple[str, ...] = ("dense",) * 4
    ese: bool = True
    width: int = 64  # of the neck's outputs and the heads
    neck_mid: int = 32
    neck_unit: str = "dense"
    head_unit: str = "dense"
    head_trunk: int = 0  # units before the branches part
    head_convs: int = 2  # units in each branch


class Neck(nn.Module):
    """VoVDet's neck: strides 8, 16, 32 at one width, fused top-down, then bottom-up."""

    def __init__(self, in_channels: tuple[int, ...], plan: OSAPlan) -> None:
        super().__init__()
        w = plan.width
        osa = partial(OSA, 2 * w, plan.neck_mid, w, 2, plan.neck_unit)
        self.laterals = nn.ModuleList(ConvNorm(c, w, 1) for c in in_channels)
        self.down = nn.ModuleList([osa(), osa()])
        self.up = nn.ModuleList([osa(), osa()])
        dense = plan.neck_unit == "dense"
        shrink = partial(ConvNorm, kernel=3) if dense else SeparableConvNorm
        self.shrink = nn.ModuleList([shrink(w, w, stride=2), shrink(w, w, stride=2)])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (conv(x) for conv, x in zip(self.laterals, features, strict=True))
        middle = self.down[0](torch.cat([_double(coarse), middle], 1))
        fine = self.down[1](torch.cat([_double(middle), fine], 1))
        middle = self.up[0](torch.cat([self.shrink[0](fine), middle], 1))
        coarse = self.up[1](torch.cat([self.shrink[1](middle), coarse], 1))
        return [fine, middle, coarse]


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """One level's predictions: `trunk` units together, `convs` in each branch."""

    def __init__(
        self, width: int, classes: int, kind: str, *, trunk: int = 0, convs: int = 2
    ) -> None:
        super().__init__()
        unit = UNITS[kind]
        self.trunk = nn.Sequential(*(unit(width, width) for _ in range(trunk)))
        self.classes = nn.Sequential(
            *(unit(width, width) for _ in range(convs)), nn.Conv2d(width, classes, 1)
        )
        self.box = nn.Sequential(
            *(unit(width, width) for _ in range(convs)), nn.Conv2d(width, 4, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return _points_last(self.classes(x)), _points_last(self.box(x))

    def start(self) -> None:
        """VoVDet's first predictions: scores near 1 %, boxes near 4 strides wide."""
        for branch, bias in ((self.classes, -math.log(99.0)), (self.box, 2.0)):
            nn.init.normal_(branch[-1].weight, std=0.01)
            nn.init.constant_(branch[-1].bias, bias)


def _points_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _predict(heads: list[nn.Module], levels: list[Tensor]) -> VoVDetOutput:
    pairs = [head(x) for head, x in zip(heads, levels, strict=True)]
    logits = torch.cat([first for first, _ in pairs], 1)
    return VoVDetOutput(logits, nn.functional.softplus(torch.cat([raw for _, raw in pairs], 1)))


def _start(network: nn.Module, act: Activation) -> None:
    init_weights(network, "kaiming")
    for module in network.modules():
        if isinstance(module, Head):
            module.start()
        if act != "relu" and isinstance(getattr(module, "act", None), nn.ReLU):
            module.act = nn.SiLU(inplace=True) if act == "silu" else nn.Hardswish(inplace=True)


class OSABackbone(nn.Module):
    """Two strided convolutions, then a stage of OSA modules at each of the strides 4 to 32."""

    def __init__(self, plan: OSAPlan) -> None:
        super().__init__()
        first, width = plan.stem
        self.stem = nn.Sequential(ConvNorm(3, first, 3, 2), ConvNorm(first, width, 3, 2))
        self.stages = nn.ModuleList()
        for i, count in enumerate(plan.modules):
            stage = nn.Sequential()
            if i > 0:
                stage.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for j in range(count):
                parts = plan.mid[i], plan.out[i], plan.layers[i], plan.units[i]
                gated = plan.ese and j == count - 1
                stage.append(OSA(width, *parts, identity=j > 0, ese=gated))
                width = plan.out[i]
            self.stages.append(stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels[1:]


class OSADetector(nn.Module):
    """VoVDet with the plan's parts; with no changes it is the shipped nano."""

    def __init__(self, plan: OSAPlan, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = OSABackbone(plan)
        self.neck = Neck(plan.out[1:], plan)
        how = {"trunk": plan.head_trunk, "convs": plan.head_convs}
        self.heads = nn.ModuleList(
            Head(plan.width, num_classes, plan.head_unit, **how) for _ in range(3)
        )
        _start(self, "relu")

    def forward(self, images: Tensor) -> VoVDetOutput:
        return _predict(list(self.heads), self.neck(self.backbone(images)))


@dataclass(frozen=True)
class CSPPlan:
    """YOLOX's plan, nano unless said otherwise: a quarter of the width, a third of the depth."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)  # at strides 2, 4, 8, 16, 32
    depth: tuple[int, ...] = (1, 3, 3, 1)  # bottlenecks at strides 4, 8, 16, 32
    width: int = 64  # of the heads
    act: Activation = "silu"


class CSPBlock(nn.Module):
    """Two 1×1 halves, one of them through residual bottlenecks; joined by a 1×1."""

    def __init__(self, in_channels: int, out: int, count: int, add: bool = False) -> None:
        super().__init__()
        half = out // 2
        self.way, self.past = ConvNorm(in_channels, half, 1), ConvNorm(in_channels, half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, 1), DeepConvNorm(half, half)) for _ in range(count)
        )
        self.join = ConvNorm(2 * half, out, 1)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y = self.way(x)
        for block in self.blocks:
            y = y + block(y) if self.add else block(y)
        return self.join(torch.cat([y, self.past(x)], 1))


class PyramidPool(nn.Module):
    """Max pools of 5, 9 and 13 beside the input, between two 1×1 (SPP)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.before, self.after = ConvNorm(channels, half, 1), ConvNorm(4 * half, channels, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        once = self.pool(x)
        twice = self.pool(once)  # 5 after 5 looks at 9, three times at 13
        return self.after(torch.cat([x, once, twice, self.pool(twice)], 1))


class CSPDetector(nn.Module):
    """CSP backbone, a path down and up again, decoupled heads."""

    def __init__(self, plan: CSPPlan, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        a, b, c, d, e = plan.channels
        self.stem = ConvNorm(12, a, 3)  # on 2×2 pixels side by side ("Focus")
        n4, n8, n16, n32 = plan.depth
        self.stride4 = nn.Sequential(DeepConvNorm(a, b, stride=2), CSPBlock(b, b, n4, True))
        self.stride8 = nn.Sequential(DeepConvNorm(b, c, stride=2), CSPBlock(c, c, n8, True))
        self.stride16 = nn.Sequential(DeepConvNorm(c, d, stride=2), CSPBlock(d, d, n16, True))
        self.stride32 = nn.Sequential(
            DeepConvNorm(d, e, stride=2), PyramidPool(e), CSPBlock(e, e, n32)
        )
        self.narrow = nn.ModuleList([ConvNorm(e, d, 1), ConvNorm(d, c, 1)])
        self.down = nn.ModuleList([CSPBlock(2 * d, d, 1), CSPBlock(2 * c, c, 1)])
        self.shrink = nn.ModuleList([DeepConvNorm(c, c, stride=2), DeepConvNorm(d, d, stride=2)])
        self.up = nn.ModuleList([CSPBlock(2 * c, d, 1), CSPBlock(2 * d, e, 1)])
        self.heads = nn.ModuleList(
            nn.Sequential(ConvNorm(x, plan.width, 1), Head(plan.width, num_classes, "deep"))
            for x in (c, d, e)
        )
        _start(self, plan.act)

    def forward(self, images: Tensor) -> VoVDetOutput:
        x = self.stem(nn.functional.pixel_unshuffle(images, 2))
        fine = self.stride8(self.stride4(x))
        middle = self.stride16(fine)
        coarse = self.narrow[0](self.stride32(middle))
        middle = self.narrow[1](self.down[0](torch.cat([_double(coarse), middle], 1)))
        fine = self.down[1](torch.cat([_double(middle), fine], 1))
        middle = self.up[0](torch.cat([self.shrink[0](fine), middle], 1))
        coarse = self.up[1](torch.cat([self.shrink[1](middle), coarse], 1))
        return _predict(list(self.heads), [fine, middle, coarse])
