"""Where predictions stand: points of an anchor-free head, prior boxes of an SSD-style one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


# Never inference tensors, whoever asks first: a later loss could not go backward through them.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def anchor_points(height: int, width: int, strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Cell centres of every level, for an input of `height`×`width` pixels.

    Returns A×2 float32 (x, y) in input pixels, ordered by level, row, column, and A strides.
    The tensors are shared between callers: do not write to them.
    """
    points, sizes = [], []
    for stride in strides:
        y = (torch.arange(math.ceil(height / stride)) + 0.5) * stride
        x = (torch.arange(math.ceil(width / stride)) + 0.5) * stride
        grid = torch.cartesian_prod(y, x).flip(1)
        points.append(grid)
        sizes.append(torch.full((len(grid),), float(stride)))
    return torch.cat(points), torch.cat(sizes)


@dataclass(frozen=True)
class PriorLevel:
    """The prior boxes of one square feature map of an SSD-style detector, in input pixels."""

    cells: int  # cells along each side
    step: float  # distance between cell centres
    min_size: float
    max_size: float | None  # None: no square of the geometric mean
    ratios: tuple[float, ...]  # beside the two square priors; each adds itself and its inverse

    @property
    def per_cell(self) -> int:
        """Priors in each cell."""
        return (1 if self.max_size is None else 2) + 2 * len(self.ratios)


def prior_boxes(levels: Sequence[PriorLevel]) -> Tensor:
    """All priors as A×4 float32 (centre x, centre y, width, height) in input pixels.

    Order: level, row, column, then side `min_size`, the geometric mean of both sizes, and per
    ratio r a box r times wider than high and its transpose (SSD, arXiv 1512.02325 section 2.2).
    """
    return torch.cat([_level_priors(level) for level in levels])


def _level_priors(level: PriorLevel) -> Tensor:
    shapes = [(level.min_size, level.min_size)]
    if level.max_size is not None:
        mean = math.sqrt(level.min_size * level.max_size)
        shapes.append((mean, mean))
    for ratio in level.ratios:
        root = math.sqrt(ratio)
        shapes.append((level.min_size * root, level.min_size / root))
        shapes.append((level.min_size / root, level.min_size * root))
    centres = (torch.arange(level.cells) + 0.5) * level.step
    grid = torch.cartesian_prod(centres, centres).flip(1)
    size = torch.tensor(shapes, dtype=torch.float32)
    return torch.cat(
        [
            grid.repeat_interleave(len(shapes), 0),
            size.repeat(len(grid), 1),
        ],
        1,
    )


def pyramid_anchors(
    height: int,
    width: int,
    strides: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float],
) -> tuple[Tensor, ...]:
    """One tensor of anchors a level, A×4 float32 xyxy in input pixels, around cell centres.

    An anchor of size s and ratio r (height to width) has the area s². Order: row, column, ratio.
    """
    levels = []
    for stride, size in zip(strides, sizes, strict=True):
        points, _ = anchor_points(height, width, (stride,))
        root = torch.tensor(ratios).sqrt()
        half = torch.stack([size / root, size * root], 1) / 2
        corners = torch.cat([-half, half], 1)
        levels.append((points.repeat(1, 2)[:, None] + corners).flatten(0, 1))
    return tuple(levels)
