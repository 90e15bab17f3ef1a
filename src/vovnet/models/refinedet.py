"""RefineDet (arXiv 1711.06897) as the VoVNet paper uses it: anchors refined once, then detected.

Anchor refinement (ARM) scores each anchor as object or not and moves it; transfer connection blocks
(TCB) carry its sources, fused top-down, to object detection (ODM), which classifies and moves the
refined anchors. Before every predictor stands a residual bottleneck, as in the released scripts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vovnet.boxes.anchors import PriorLevel
from vovnet.models.backbone import Backbone
from vovnet.models.layers import Bottleneck, ConvNorm, init_weights, rows_of_priors

_ANCHORS = 3  # per cell: ratios 1, 2, 1/2 of one size, four strides wide
_STRIDES = (8, 16, 32, 64)


def anchor_levels(size: int) -> tuple[PriorLevel, ...]:
    """The four anchor levels for inputs of size×size pixels, a multiple of 64."""
    return tuple(PriorLevel(size // s, float(s), 4.0 * s, None, (2.0,)) for s in _STRIDES)


class RefineDetOutput(NamedTuple):
    """Dense predictions at A anchors; column 0 of both logits is background.

    `arm_logits` N×A×2 and `arm_offsets` N×A×4 of the anchors themselves; `class_logits` N×A×(1+C)
    and `offsets` N×A×4 of the anchors after refinement.
    """

    arm_logits: Tensor
    arm_offsets: Tensor
    class_logits: Tensor
    offsets: Tensor


class TransferConnection(nn.Module):
    """An ARM source, and the level above it enlarged, to one 256-channel detection level."""

    def __init__(self, in_channels: int, width: int, *, top: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(ConvNorm(in_channels, width), ConvNorm(width, width, relu=top))
        self.enlarge = None
        if not top:
            self.enlarge = nn.Sequential(
                nn.ConvTranspose2d(width, width, 2, 2, bias=False), nn.BatchNorm2d(width)
            )
        self.act = nn.ReLU(inplace=True)
        self.refine = ConvNorm(width, width)

    def forward(self, x: Tensor, above: Tensor | None) -> Tensor:
        x = self.reduce(x)
        if self.enlarge is not None:
            x = self.act(x + self.enlarge(above))
        return self.refine(x)


class Predictor(nn.Module):
    """A residual bottleneck, then 3×3 convolutions with bias for classes and for offsets."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.inter = Bottleneck(in_channels, 256, 1024)
        self.classes = nn.Conv2d(1024, _ANCHORS * num_classes, 3, padding=1)
        self.offsets = nn.Conv2d(1024, _ANCHORS * 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inter(x)
        return (
            rows_of_priors(self.classes(x), self.num_classes),
            rows_of_priors(self.offsets(x), 4),
        )


class RefineDet(nn.Module):
    """N×3×S×S images, S a multiple of 64, to a `RefineDetOutput`, alike in train and eval.

    The backbone gives three maps of strides 8, 16 and 32; `num_classes` counts the background.
    """

    def __init__(self, backbone: Backbone, num_classes: int, width: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        channels = [info.channels for info in backbone.taps]
        self.extra = Bottleneck(channels[-1], 128, 512, stride=2)
        channels.append(512)
        self.arm = nn.ModuleList(Predictor(c, 2) for c in channels)
        self.connections = nn.ModuleList(
            TransferConnection(c, width, top=level == len(channels) - 1)
            for level, c in enumerate(channels)
        )
        self.odm = nn.ModuleList(Predictor(width, num_classes) for _ in channels)
        init_weights(self, "xavier")

    def forward(self, images: Tensor) -> RefineDetOutput:
        sources = self.backbone(images)
        sources.append(self.extra(sources[-1]))
        levels: list[Tensor] = []
        for connect, source in zip(reversed(self.connections), reversed(sources), strict=True):
            levels.append(connect(source, levels[-1] if levels else None))
        levels.reverse()
        arm = [head(x) for head, x in zip(self.arm, sources, strict=True)]
        odm = [head(x) for head, x in zip(self.odm, levels, strict=True)]
        return RefineDetOutput(
            torch.cat([logits for logits, _ in arm], 1),
            torch.cat([offsets for _, offsets in arm], 1),
            torch.cat([logits for logits, _ in odm], 1),
            torch.cat([offsets for _, offsets in odm], 1),
        )
