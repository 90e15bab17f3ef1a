"""VoVNet V1 (arXiv 1904.09730) and V2 (arXiv 1911.06667): backbones of One-Shot Aggregation.

The sources disagree on the stem, the identity and eSE; each is a field of `VoVNetSpec`:

- stem: "pooled" is the paper's (strides 2,1,1, then every stage starts with a max pool);
  "strided" is that of every PyTorch release (strides 2,1,2, the first stage has no pool).
- identity: the paper's V1 has none; the released V1 code and V2 add the module's input.
- ese: V2's released code gates every module ("all"), timm the last module of a stage ("last").
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vovnet.models.backbone import Backbone, FeatureInfo
from vovnet.models.layers import (
    ConvNorm,
    EffectiveSqueezeExcite,
    Norm,
    SeparableConvNorm,
    init_weights,
)


@dataclass(frozen=True)
class VoVNetSpec:
    """All that tells one VoVNet from another. Tuples have one entry per stage 2..5."""

    mid: tuple[int, ...]  # width of a module's 3×3 convolutions
    out: tuple[int, ...]  # width after the aggregation
    modules: tuple[int, ...]  # OSA modules in the stage
    layers: int = 5  # 3×3 convolutions in a module
    stem_widths: tuple[int, ...] = (64, 64, 128)
    stem: Literal["pooled", "strided"] = "pooled"
    identity: bool = False
    ese: Literal["none", "last", "all"] = "none"
    depthwise: bool = False
    bottleneck: bool = False  # a 1×1 to half the width before every 3×3 (paper table 3)
    norm: Norm = "batch"


_WIDE = {"mid": (128, 160, 192, 224), "out": (256, 512, 768, 1024)}
_SLIM_V1 = {"mid": (64, 80, 96, 112), "out": (128, 256, 384, 512)}
_SLIM_V2 = {"mid": (64, 80, 96, 112), "out": (112, 256, 384, 512)}

_V1 = {
    "vovnet27_slim": VoVNetSpec(**_SLIM_V1, modules=(1, 1, 1, 1)),
    "vovnet27_slim_bottleneck": VoVNetSpec(**_SLIM_V1, modules=(1, 1, 1, 1), bottleneck=True),
    "vovnet39": VoVNetSpec(**_WIDE, modules=(1, 1, 2, 2)),
    "vovnet57": VoVNetSpec(**_WIDE, modules=(1, 1, 4, 3)),
}


def _v2(widths: dict, modules: tuple[int, ...], layers: int, depthwise: bool = False) -> VoVNetSpec:
    stem = (64, 64, 64) if depthwise else (64, 64, 128)
    return VoVNetSpec(
        **widths,
        modules=modules,
        layers=layers,
        stem_widths=stem,
        stem="strided",
        identity=True,
        ese="all",
        depthwise=depthwise,
    )


_V2 = {
    "vovnet19_slim_dw": _v2(_SLIM_V2, (1, 1, 1, 1), 3, depthwise=True),
    "vovnet19_dw": _v2(_WIDE, (1, 1, 1, 1), 3, depthwise=True),
    "vovnet19_slim": _v2(_SLIM_V2, (1, 1, 1, 1), 3),
    "vovnet19": _v2(_WIDE, (1, 1, 1, 1), 3),
    "vovnet39_v2": _v2(_WIDE, (1, 1, 2, 2), 5),
    "vovnet57_v2": _v2(_WIDE, (1, 1, 4, 3), 5),
    "vovnet99": _v2(_WIDE, (1, 3, 9, 3), 5),
}

# The same networks as timm builds them, under timm's names.
_TIMM = {
    "vovnet39a": replace(_V1["vovnet39"], stem="strided"),
    "vovnet57a": replace(_V1["vovnet57"], stem="strided"),
    "ese_vovnet19b_slim_dw": replace(_V2["vovnet19_slim_dw"], ese="last"),
    "ese_vovnet19b_dw": replace(_V2["vovnet19_dw"], ese="last"),
    "ese_vovnet19b_slim": replace(_V2["vovnet19_slim"], ese="last"),
    "ese_vovnet39b": replace(_V2["vovnet39_v2"], ese="last"),
    "ese_vovnet57b": replace(_V2["vovnet57_v2"], ese="last"),
    "ese_vovnet99b": replace(_V2["vovnet99"], ese="last"),
}

SPECS: dict[str, VoVNetSpec] = {**_V1, **_V2, **_TIMM}


def _bottleneck(in_channels: int, out_channels: int, norm: Norm) -> nn.Module:
    """1×1 to half the 3×3's output width, then the 3×3: the reading that gives table 3's counts."""
    half = out_channels // 2
    return nn.Sequential(
        ConvNorm(in_channels, half, 1, norm=norm), ConvNorm(half, out_channels, norm=norm)
    )


class OSAModule(nn.Module):
    """One-Shot Aggregation: a chain of 3×3 convolutions, concatenated once, mixed by a 1×1.

    N×in×H×W → N×out×H×W (paper section 3.2, figure 1b). With `identity` the input is added to
    the result, with `ese` the result is gated first.
    """

    def __init__(
        self,
        in_channels: int,
        mid: int,
        out: int,
        layers: int,
        *,
        identity: bool = False,
        ese: bool = False,
        depthwise: bool = False,
        bottleneck: bool = False,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        width = in_channels
        self.conv_reduction = nn.Identity()
        if depthwise and in_channels != mid:
            self.conv_reduction = ConvNorm(in_channels, mid, 1, norm=norm)
            width = mid
        conv: Callable[..., nn.Module] = SeparableConvNorm if depthwise else ConvNorm
        if bottleneck:
            conv = _bottleneck
        self.conv_mid = nn.ModuleList(
            conv(width if i == 0 else mid, mid, norm=norm) for i in range(layers)
        )
        self.conv_concat = ConvNorm(in_channels + layers * mid, out, 1, norm=norm)
        self.attn = EffectiveSqueezeExcite(out) if ese else nn.Identity()
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        y = self.conv_reduction(x)
        for conv in self.conv_mid:
            y = conv(y)
            features.append(y)
        y = self.attn(self.conv_concat(torch.cat(features, 1)))
        return y + x if self.identity else y


class OSAStage(nn.Module):
    """An optional 3×3/2 max pool (no padding, ceil mode), then the stage's OSA modules."""

    def __init__(self, in_channels: int, spec: VoVNetSpec, stage: int, pool: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True) if pool else nn.Identity()
        count = spec.modules[stage]
        self.blocks = nn.Sequential(
            *(
                OSAModule(
                    in_channels if i == 0 else spec.out[stage],
                    spec.mid[stage],
                    spec.out[stage],
                    spec.layers,
                    identity=spec.identity and i > 0,
                    ese=spec.ese == "all" or (spec.ese == "last" and i == count - 1),
                    depthwise=spec.depthwise,
                    bottleneck=spec.bottleneck,
                    norm=spec.norm,
                )
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pool(x))


def _stem(spec: VoVNetSpec) -> nn.Sequential:
    """3×3 convolutions: the first with stride 2, the last too if the stem is strided."""
    layers: list[nn.Module] = []
    in_channels, last = 3, len(spec.stem_widths) - 1
    for i, width in enumerate(spec.stem_widths):
        stride = 2 if i == 0 or (i == last and spec.stem == "strided") else 1
        if spec.depthwise and i > 0:
            layers.append(SeparableConvNorm(in_channels, width, stride, norm=spec.norm))
        else:
            layers.append(ConvNorm(in_channels, width, 3, stride, norm=spec.norm))
        in_channels = width
    return nn.Sequential(*layers)


class VoVNet(Backbone):
    """The backbone: N×3×H×W images to a list of feature maps.

    `feature_info` describes every tap in order: the stem and each stage, taken before the next
    pool. `out_indices` chooses the taps that `forward` returns (default: the four stages, strides
    4, 8, 16, 32).
    """

    def __init__(self, spec: VoVNetSpec, out_indices: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        strided = spec.stem == "strided"
        widths = (spec.stem_widths[-1], *spec.out)
        strides = (4 if strided else 2, *(4 * 2**i for i in range(len(spec.out))))
        names = ("stem", *(f"stage{i + 2}" for i in range(len(spec.out))))
        super().__init__(tuple(map(FeatureInfo, names, widths, strides)), out_indices)
        self.spec = spec
        self.stem = _stem(spec)
        self.stages = nn.ModuleList(
            OSAStage(widths[i], spec, i, pool=i > 0 or not strided) for i in range(len(spec.out))
        )
        init_weights(self, "kaiming")

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        taps = [x]
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return [taps[i] for i in self.out_indices]
