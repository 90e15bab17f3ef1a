"""VoVDet, the house detector for small machines: OSA backbone and neck, anchor-free heads.

The backbone is a VoVNetV2 whose stem reaches stride 4 in two convolutions, so that most of the
work lies where the maps are small; the neck fuses strides 8, 16 and 32 top-down, then bottom-up,
each time with one OSA module; class and box each have their own branch of two 3×3 convolutions.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vovnet.models.layers import ConvNorm, init_weights
from vovnet.models.vovnet import OSAModule, VoVNet, VoVNetSpec

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class VoVDetSpec:
    """Backbone, and the widths of neck and heads."""

    backbone: VoVNetSpec
    width: int = 64  # channels of every neck output and head branch
    mid: int = 32  # width of the neck modules' 3×3 convolutions


SPECS = {
    "vovdet_nano": VoVDetSpec(
        VoVNetSpec(
            mid=(24, 64, 80, 96),
            out=(64, 128, 256, 320),
            modules=(1, 1, 2, 1),
            layers=3,
            stem_widths=(24, 48),
            stem="strided",
            identity=True,
            ese="last",
        )
    ),
    # Half as wide again, and made for a larger input: some four times nano's time an image.
    "vovdet_small": VoVDetSpec(
        VoVNetSpec(
            mid=(40, 96, 120, 144),
            out=(96, 192, 384, 480),
            modules=(1, 1, 2, 1),
            layers=3,
            stem_widths=(32, 64),
            stem="strided",
            identity=True,
            ese="last",
        ),
        width=96,
        mid=48,
    ),
}


class VoVDetOutput(NamedTuple):
    """Dense predictions at A points, ordered by stride, row, column.

    `class_logits` is N×A×classes (sigmoid gives scores); `distances` is N×A×4, non-negative, from
    the point to the left, top, right and bottom sides, in units of the point's stride.
    """

    class_logits: Tensor
    distances: Tensor


class Neck(nn.Module):
    """Strides 8, 16, 32 of the backbone to the same strides at one width, fused both ways."""

    def __init__(self, in_channels: tuple[int, ...], width: int, mid: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(c, width, 1) for c in in_channels)
        self.down = nn.ModuleList(OSAModule(2 * width, mid, width, 2) for _ in in_channels[1:])
        self.shrink = nn.ModuleList(ConvNorm(width, width, 3, 2) for _ in in_channels[1:])
        self.up = nn.ModuleList(OSAModule(2 * width, mid, width, 2) for _ in in_channels[1:])

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
    """One level's predictions: N×width×H×W to N×(H·W)×classes logits and N×(H·W)×4 distances."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(
            ConvNorm(width, width), ConvNorm(width, width), nn.Conv2d(width, num_classes, 1)
        )
        self.box = nn.Sequential(
            ConvNorm(width, width), ConvNorm(width, width), nn.Conv2d(width, 4, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _points_last(self.classes(x)), _points_last(self.box(x))


def _points_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class VoVDet(nn.Module):
    """Images N×3×H×W (H and W multiples of 32) to a `VoVDetOutput`, alike in train and eval."""

    def __init__(self, spec: VoVDetSpec, num_classes: int) -> None:
        super().__init__()
        self.backbone = VoVNet(spec.backbone, out_indices=(2, 3, 4))
        channels = tuple(tap.channels for tap in self.backbone.taps)
        self.neck = Neck(channels, spec.width, spec.mid)
        self.heads = nn.ModuleList(Head(spec.width, num_classes) for _ in STRIDES)
        init_weights(self, "kaiming")
        self._init_predictions()

    def _init_predictions(self) -> None:
        """Start every score near 1 % (focal-loss prior) and every box near 4 strides wide."""
        for module in self.heads:
            if not isinstance(module, Head):
                continue
            for branch, bias in ((module.classes, -math.log(99.0)), (module.box, 2.0)):
                convolution = branch[-1]
                if isinstance(convolution, nn.Conv2d) and convolution.bias is not None:
                    nn.init.normal_(convolution.weight, std=0.01)
                    nn.init.constant_(convolution.bias, bias)

    def forward(self, images: Tensor) -> VoVDetOutput:
        levels = self.neck(self.backbone(images))
        pairs = [head(x) for head, x in zip(self.heads, levels, strict=True)]
        return VoVDetOutput(
            torch.cat([logits for logits, _ in pairs], 1),
            nn.functional.softplus(torch.cat([raw for _, raw in pairs], 1)),
        )
