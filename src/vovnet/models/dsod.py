"""DSOD300 (arXiv 1708.01241): single-shot, trained from scratch, with dense prediction.

The VoVNet paper does not write down how its backbone attaches; stages 3, 4 and 5 as the first
three sources reproduce its parameter and operation counts to the printed digit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vovnet.boxes.anchors import PriorLevel
from vovnet.models.backbone import Backbone
from vovnet.models.layers import L2Norm, bn_relu_conv, init_weights, rows_of_priors

# Released code, except the last step: it has 300 for a 2×2 map, which puts centres outside the
# image; 150 puts them inside.
_STEPS = (8.0, 16.0, 32.0, 64.0, 100.0, 150.0)
_MIN_SIZES = (30.0, 60.0, 111.0, 162.0, 213.0, 264.0)
_MAX_SIZES = (60.0, 111.0, 162.0, 213.0, 264.0, 315.0)
_RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))


def prior_levels(cells: Sequence[int]) -> tuple[PriorLevel, ...]:
    """DSOD300's six levels of priors for feature maps of the given cells per side."""
    return tuple(
        PriorLevel(*level)
        for level in zip(cells, _STEPS, _MIN_SIZES, _MAX_SIZES, _RATIOS, strict=True)
    )


class PriorOutput(NamedTuple):
    """Dense predictions at A priors: `class_logits` N×A×(1+C), column 0 is background, and
    `offsets` N×A×4 (see `vovnet.boxes.coding.encode_offsets`)."""

    class_logits: Tensor
    offsets: Tensor


class DensePrediction(nn.Module):
    """Half the channels learned (1×1, then 3×3 with stride 2), half pooled from the level before.

    N×in×H×W → N×2·half×⌈H/2⌉×⌈W/2⌉ (DSOD section 3.2, figure 1).
    """

    def __init__(self, in_channels: int, half: int) -> None:
        super().__init__()
        self.learned = nn.Sequential(
            bn_relu_conv(in_channels, half, 1), bn_relu_conv(half, half, 3, 2)
        )
        self.pooled = nn.Sequential(
            nn.MaxPool2d(2, 2, ceil_mode=True), bn_relu_conv(in_channels, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.learned(x), self.pooled(x)], 1)


class PlainPrediction(nn.Sequential):
    """SSD's way to the next level, for comparison: 1×1, then 3×3 with stride 2, all learned."""

    def __init__(self, in_channels: int, half: int) -> None:
        super().__init__(bn_relu_conv(in_channels, half, 1), bn_relu_conv(half, 2 * half, 3, 2))


class PriorHead(nn.Module):
    """One level's L2 normalisation and its two 3×3 convolutions, each batch-normalised, no bias."""

    def __init__(self, in_channels: int, priors: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm = L2Norm(in_channels)
        self.classes = self._branch(in_channels, priors * num_classes)
        self.offsets = self._branch(in_channels, priors * 4)

    @staticmethod
    def _branch(in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        return (
            rows_of_priors(self.classes(x), self.num_classes),
            rows_of_priors(self.offsets(x), 4),
        )


class DSOD(nn.Module):
    """N×3×300×300 images to a `PriorOutput` over the priors of six levels, alike in train and eval.

    The backbone's taps are the first sources; every further level comes from the one before by
    dense prediction (or SSD's plain one) with `halves` channels in each half. `num_classes`
    counts the background, as the paper does (21 for PASCAL VOC).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        levels: Sequence[PriorLevel],
        halves: Sequence[int],
        *,
        dense: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        channels = [tap.channels for tap in backbone.taps]
        self.extras = nn.ModuleList()
        for half in halves:
            extra = DensePrediction if dense else PlainPrediction
            self.extras.append(extra(channels[-1], half))
            channels.append(2 * half)
        self.heads = nn.ModuleList(
            PriorHead(c, level.per_cell, num_classes)
            for c, level in zip(channels, levels, strict=True)
        )
        init_weights(self, "xavier")

    def forward(self, images: Tensor) -> PriorOutput:
        sources = self.backbone(images)
        for layer in self.extras:
            sources.append(layer(sources[-1]))
        pairs = [head(x) for head, x in zip(self.heads, sources, strict=True)]
        return PriorOutput(
            torch.cat([logits for logits, _ in pairs], 1),
            torch.cat([offsets for _, offsets in pairs], 1),
        )
