"""Overlap of many boxes with many, never all of it in memory at once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Pairs computed together: 4 MB of float32, which the caches of a processor hold.
PAIRS = 2**20


@torch.no_grad()
def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of G×4 with A×4 xyxy boxes: G×A float32, in [0, 1].

    Boxes without area overlap nothing, and so do boxes that are not finite: 0, never NaN.
    """
    # Four rows each, so that the inner loops read neighbours in memory.
    return overlaps(a.float().T.contiguous()[..., None], b.float().T.contiguous())


def overlaps(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor) -> Tensor:
    """IoU of boxes given as x1, y1, x2 and y2, those of `a` broadcast against those of `b`."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    overlap = width.mul_(height)
    union = ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)).sub_(overlap)
    return overlap.div_(union.clamp_(min=1e-9)).nan_to_num_(0.0)


def iou_rows(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """`pairwise_iou(a, b)` a few rows at a time, as (first row, rows×A).

    No tensor on the way holds more than 4 MB, unless a single row (4·A bytes) does.
    """
    step = max(1, PAIRS // max(1, len(b)))
    for start in range(0, len(a), step):
        yield start, pairwise_iou(a[start : start + step], b)
