"""Masks to learn: every object's bitmap, cut out with the region that answers for it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from vovnet.errors import DataError
from vovnet.losses.regions import Regions
from vovnet.losses.target import InstanceMasks, Target
from vovnet.losses.term import Term


@torch.no_grad()
def mask_targets(masks: InstanceMasks, regions: Regions, size: int) -> Tensor:
    """What of its object each region sees: R×size×size float32 in 0..1, by RoIAlign.

    Equal to cutting the region out of a whole-image mask, without ever making one. `regions`
    must all answer for objects with a mask.
    """
    seen = regions.boxes.new_zeros(len(regions.boxes), size, size)
    bitmaps = masks.bitmaps()
    for i in regions.matched.unique().tolist():
        mine = regions.matched == i
        frame, (height, width) = masks.frames[i], bitmaps[i].shape
        sides = frame[2:] - frame[:2]
        scale = torch.stack([width / sides[0], height / sides[1]]).repeat(2)
        # The border of zeros keeps what lies outside the frame outside of the mask.
        boxes = (regions.boxes[mine] - frame[:2].repeat(2)) * scale + 1
        padded = nn.functional.pad(bitmaps[i].float(), (1, 1, 1, 1))[None, None]
        seen[mine] = roi_align(padded, [boxes], size, aligned=True)[:, 0]
    return seen


def masked_objects(regions: Regions, target: Target) -> Regions:
    """The regions that answer for an object with a mask.

    Raises `DataError` if the target carries no masks at all.
    """
    if target.masks is None:
        raise DataError("the network draws masks, but the data has none; give COCO segmentations")
    found = regions.foreground
    drawn = target.masks.shapes.prod(1)[found.matched] > 0
    return Regions(found.boxes[drawn], found.matched[drawn])


def mask_loss(logits: Tensor, seen: Tensor, count: Tensor) -> Term:
    """Binary cross-entropy of R×S×S logits, a mask's mean over its cells; `count` is R as a tensor.
    0, but with a gradient, for no regions."""
    total = nn.functional.binary_cross_entropy_with_logits(logits, seen, reduction="sum")
    return Term(total / logits.shape[1:].numel(), count)


@torch.no_grad()
def mask_overlaps(
    probabilities: Tensor, seen: Tensor, regions: Sequence[Regions], targets: Sequence[Target]
) -> Tensor:
    """IoU of every predicted mask, cut at 0.5, with its whole object: R (Mask Scoring R-CNN).

    `probabilities` and `seen` are R×S×S. The part of an object outside its region counts, so a box
    that is too small cannot have a perfect mask.
    """
    drawn, true = probabilities >= 0.5, seen >= 0.5
    both, said = (drawn & true).sum((1, 2)), drawn.sum((1, 2))
    whole = torch.cat(
        [_cells(r, t.masks, seen.shape[1]) for r, t in zip(regions, targets, strict=True)]
    )
    union = said + torch.maximum(whole, true.sum((1, 2))) - both
    return both / union.clamp(min=1.0)


def _cells(regions: Regions, masks: InstanceMasks | None, size: int) -> Tensor:
    """Area of each region's whole object, in cells of a size×size grid over the region."""
    assert masks is not None  # `masked_objects` has looked
    sides = masks.frames[:, 2:] - masks.frames[:, :2]
    filled = [float(b.float().mean()) if b.numel() else 0.0 for b in masks.bitmaps()]
    area = sides.prod(1) * sides.new_tensor(filled)
    region = (regions.boxes[:, 2:] - regions.boxes[:, :2]).prod(1).clamp(min=1e-6)
    return area[regions.matched] / region * size**2
