"""The light single-shot detectors of the paper's table 2: SSD300 on MobileNetV1, and Pelee304.

Neither has a 38×38 level. The paper prints their sizes only; the layouts are those of the released
Caffe models (MobileNet-SSD of chuanqi305, trained on PASCAL VOC; Pelee, arXiv 1804.06882), whose
counts these are. Where the released files leave a level's step to Caffe, it is input over cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vovnet.boxes.anchors import PriorLevel
from vovnet.models.backbone import Backbone
from vovnet.models.dsod import PriorOutput
from vovnet.models.layers import Bottleneck, ConvNorm, init_weights, rows_of_priors


@dataclass(frozen=True)
class Extra:
    """How a further map comes from the one before: 1×1 to `mid` channels, 3×3 to `out`."""

    mid: int
    out: int
    stride: int = 2
    padding: int = 1

    def cells(self, before: int) -> int:
        """Cells along each side, from those of the map before."""
        return (before + 2 * self.padding - 3) // self.stride + 1


@dataclass(frozen=True)
class SSDSpec:
    """All that tells one of these detectors from another, but for the backbone.

    The maps are the backbone's at strides 16 and 32, then the extras'. `sizes` are the least
    sides of the six levels' squares in input pixels, and the last level's greatest.
    """

    side: int  # of the input, in pixels
    extras: tuple[Extra, ...]
    sizes: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]
    sources: tuple[int, ...]  # the map that each level reads
    normalised: bool  # batch norms in the extras, instead of biases
    residual: bool  # a residual block before the predictors of every map
    one_square: bool  # the first level has no second square
    mean: tuple[float, float, float]  # of the input, RGB in 0..255
    std: tuple[float, float, float]

    def levels(self, sides: Sequence[int]) -> tuple[PriorLevel, ...]:
        """The levels of priors, given the cells along each side of the backbone's two maps."""
        cells = [*sides]
        for extra in self.extras:
            cells.append(extra.cells(cells[-1]))
        greatest: list[float | None] = [*self.sizes[1:]]
        if self.one_square:
            greatest[0] = None
        return tuple(
            PriorLevel(cells[source], self.side / cells[source], least, most, ratios)
            for source, least, most, ratios in zip(
                self.sources, self.sizes[:-1], greatest, self.ratios, strict=True
            )
        )


SPECS = {
    "ssd300": SSDSpec(
        side=300,
        extras=(Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(64, 128)),
        sizes=(60.0, 105.0, 150.0, 195.0, 240.0, 285.0, 300.0),
        ratios=((2.0,), *(((2.0, 3.0),) * 5)),
        sources=(0, 1, 2, 3, 4, 5),
        normalised=True,
        residual=False,
        one_square=True,
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
    ),
    "pelee304": SSDSpec(
        side=304,
        extras=(Extra(256, 256), Extra(128, 256, 1, 0), Extra(128, 256, 1, 0)),
        sizes=tuple(3.04 * percent for percent in (10, 20, 37, 54, 71, 88, 105)),
        ratios=((2.0, 3.0),) * 6,
        sources=(0, 0, 1, 2, 3, 4),
        normalised=False,
        residual=True,
        one_square=False,
        mean=(123.68, 116.78, 103.94),
        std=(58.8, 58.8, 58.8),
    ),
}


def _extra(in_channels: int, spec: Extra, normalised: bool) -> nn.Sequential:
    if normalised:
        return nn.Sequential(
            ConvNorm(in_channels, spec.mid, 1), ConvNorm(spec.mid, spec.out, 3, spec.stride)
        )
    return nn.Sequential(
        nn.Conv2d(in_channels, spec.mid, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(spec.mid, spec.out, 3, spec.stride, spec.padding),
        nn.ReLU(inplace=True),
    )


class PointwiseHead(nn.Module):
    """One level's predictors: 1×1 convolutions with bias for classes and for offsets."""

    def __init__(self, in_channels: int, priors: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classes = nn.Conv2d(in_channels, priors * num_classes, 1)
        self.offsets = nn.Conv2d(in_channels, priors * 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (
            rows_of_priors(self.classes(x), self.num_classes),
            rows_of_priors(self.offsets(x), 4),
        )


class SSD(nn.Module):
    """Images N×3×S×S to a `PriorOutput` over the priors of six levels, alike in train and eval.

    The backbone gives two maps, of strides 16 and 32; `num_classes` counts the background.
    """

    def __init__(
        self, backbone: Backbone, spec: SSDSpec, levels: Sequence[PriorLevel], num_classes: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sources = spec.sources
        channels = [tap.channels for tap in backbone.taps]
        self.extras = nn.ModuleList()
        for extra in spec.extras:
            self.extras.append(_extra(channels[-1], extra, spec.normalised))
            channels.append(extra.out)
        self.blocks = nn.ModuleList()
        if spec.residual:
            self.blocks.extend(Bottleneck(c, 128, 256) for c in channels)
            channels = [256] * len(channels)
        self.heads = nn.ModuleList(
            PointwiseHead(channels[source], level.per_cell, num_classes)
            for source, level in zip(spec.sources, levels, strict=True)
        )
        init_weights(self, "xavier")

    def forward(self, images: Tensor) -> PriorOutput:
        maps = self.backbone(images)
        for layer in self.extras:
            maps.append(layer(maps[-1]))
        if self.blocks:
            maps = [block(x) for block, x in zip(self.blocks, maps, strict=True)]
        pairs = [head(maps[i]) for head, i in zip(self.heads, self.sources, strict=True)]
        return PriorOutput(
            torch.cat([logits for logits, _ in pairs], 1),
            torch.cat([offsets for _, offsets in pairs], 1),
        )
