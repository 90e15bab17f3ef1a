"""FCOS's criterion (arXiv 1904.01355, improved): points inside boxes, focal loss, centre-ness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances
from vovnet.losses.target import Target
from vovnet.losses.term import Term

_ELEMENTS = 2**21  # point-box pairs looked at together


class PointMatch(NamedTuple):
    """For every point: the object it answers for, or -1, and that object's centre-ness there."""

    matched: Tensor
    centerness: Tensor


def _sides(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances of A points to the left, top, right and bottom of G boxes: 4×G×A pixels."""
    x, y = points.T
    left, top, right, bottom = boxes.T[:, :, None]
    return torch.stack([x - left, y - top, right - x, bottom - y])


@torch.no_grad()
def match_points(
    points: Tensor, strides: Tensor, reach: Tensor, boxes: Tensor, radius: float = 1.5
) -> PointMatch:
    """Points A×2 and boxes G×4 xyxy, in input pixels, to one object a point.

    A point may answer for a box that it lies in, within `radius` strides of the centre, if the
    box's farthest side is within the level's `reach` (A×2: least and greatest distance in pixels).
    Of several boxes it takes the smallest (FCOS section 3.2 and centre sampling).
    """
    if len(boxes) == 0:
        return PointMatch(torch.full((len(points),), -1, device=points.device), points[:, 0] * 0)
    size = max(1, _ELEMENTS // len(boxes))
    parts = [
        _match_part(p, s, r, boxes, radius)
        for p, s, r in zip(points.split(size), strides.split(size), reach.split(size), strict=True)
    ]
    return PointMatch(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _match_part(
    points: Tensor, strides: Tensor, reach: Tensor, boxes: Tensor, radius: float
) -> PointMatch:
    sides = _sides(points, boxes)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    offset = (points[None] - centres[:, None]).abs().amax(2)
    farthest = sides.amax(0)
    allowed = (sides.amin(0) > 0) & (offset < radius * strides)
    allowed &= (farthest >= reach[:, 0]) & (farthest <= reach[:, 1])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    cost = area[:, None].expand_as(offset).masked_fill(~allowed, torch.inf)
    least, owner = cost.min(0)
    matched = owner.masked_fill(least == torch.inf, -1)
    left, top, right, bottom = sides.clamp(min=1e-6).gather(1, owner.expand(4, 1, -1))[:, 0]
    balance = torch.minimum(left, right) / torch.maximum(left, right)
    balance = balance * torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return PointMatch(matched, balance.sqrt() * (matched >= 0))


@dataclass(frozen=True)
class FCOSLoss:
    """Focal loss over positives, GIoU weighted by centre-ness, and centre-ness itself.

    `ranges` gives each level's least and greatest distance to a box's farthest side, in pixels.
    """

    strides: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]

    def __call__(
        self, outputs: Any, targets: Sequence[Target], image_size: tuple[int, int]
    ) -> dict[str, Term]:
        """Terms "class", "box", "centerness"; finite also when no image has an object.

        `outputs` has class_logits N×A×C, distances N×A×4 in strides, centerness N×A logits.
        """
        logits, distances = outputs.class_logits.float(), outputs.distances.float()
        points, strides = (t.to(logits.device) for t in anchor_points(*image_size, self.strides))
        level = (strides[:, None] > strides.new_tensor(self.strides)).sum(1)
        reach = strides.new_tensor(self.ranges)[level]
        matches = [match_points(points, strides, reach, t.boxes) for t in targets]
        matched = torch.stack([m.matched for m in matches])
        balance = torch.stack([m.centerness for m in matches])
        positive = matched >= 0
        wanted = torch.zeros_like(logits)
        truth = torch.zeros_like(distances)
        for i, target in enumerate(targets):
            index = matched[i][positive[i]]
            wanted[i, positive[i], target.labels[index]] = 1.0
            truth[i, positive[i]] = target.boxes[index]
        count = positive.sum()
        weight = balance[positive]
        boxes = decode_distances(distances, points, strides)
        overlap = generalized_box_iou_loss(boxes[positive], truth[positive])
        said = outputs.centerness.float()[positive]
        centre = nn.functional.binary_cross_entropy_with_logits(said, weight, reduction="sum")
        return {
            "class": Term(sigmoid_focal_loss(logits, wanted, reduction="sum"), count),
            "box": Term((overlap * weight).sum(), weight.sum(), 1e-6),
            "centerness": Term(centre, count),
        }
