"""Task-aligned assignment and loss for anchor-free heads (TOOD, arXiv 2108.07755; YOLOv8).

A point is a positive of a box when it is among the box's best by sqrt(score)·IoU⁶; its class
target is not 1 but grows with that measure, so that high scores go to well-placed boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances
from vovnet.boxes.rows import BatchRows
from vovnet.losses.target import Target, weights_of
from vovnet.losses.term import Term


class Assignment(NamedTuple):
    """The P positives: their places P among the N·A points of the batch, labels P, class targets P
    in (0, 1] and matched boxes P×4."""

    points: Tensor
    labels: Tensor
    scores: Tensor
    boxes: Tensor


@torch.no_grad()
def assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    targets: Sequence[Target],
    *,
    top: int = 10,
    reach: float = 8.0,
) -> Assignment:
    """Match predictions (logits N×A×C, boxes N×A×4) at A points to the objects of N images.

    Candidates of an object are the points inside its box, the box taken at least `reach` pixels to
    each side of its centre so that small objects have candidates too. A point wanted by several
    objects goes to the one that its prediction overlaps most, of equals to the first. The class
    targets of a teacher's object are those of a label times its score. All boxes are xyxy in input
    pixels. No tensor on the way exceeds 4 MB on a CPU and 16 times that on a
    GPU, unless a single row of the overlaps, `top` numbers an object or one a point do.
    """
    rows = BatchRows([target.boxes for target in targets])
    labels = torch.cat([target.labels for target in targets])
    wishes = _Wishes(logits, boxes, points, min(top, len(points)), reach)
    found = [wishes.of(rows, part, labels[part]) for part in rows.parts(rows.all, len(points))]
    point, overlap, measure, inside = (torch.cat(part) for part in zip(*found, strict=True))
    truth = rows.all[:, None].expand_as(point)[inside]
    point, overlap, measure = point[inside], overlap[inside], measure[inside]

    most = overlap.new_zeros(boxes.shape[0] * boxes.shape[1])
    most.scatter_reduce_(0, point, overlap, "amax")
    closest = overlap == most[point]
    owner = torch.full_like(most, len(rows), dtype=torch.int64)
    owner.scatter_reduce_(0, point[closest], truth[closest], "amin")
    own = owner[point] == truth
    point, truth, overlap, measure = point[own], truth[own], overlap[own], measure[own]

    none = overlap.new_zeros(len(rows))
    # sqrt(score)·IoU⁶ of a tiny object in a fresh network is around 1e-15.
    peak = none.scatter_reduce(0, truth, measure, "amax").clamp(min=1e-30)
    ceiling = none.scatter_reduce(0, truth, overlap, "amax")
    scores = measure / peak[truth] * ceiling[truth]
    sure = scores > 0
    truth, scores = truth[sure], scores[sure]
    weights = weights_of(targets)
    if weights is not None:
        scores = scores * weights[truth]
    return Assignment(point[sure], labels[truth], scores, rows.boxes[truth])


class _Wishes:
    """The `top` points of objects by sqrt(score)·IoU⁶, with what is known of them."""

    def __init__(
        self, logits: Tensor, boxes: Tensor, points: Tensor, top: int, reach: float
    ) -> None:
        self.logits = logits.mT
        self.boxes = boxes.float().movedim(-1, 0).contiguous()
        self.points, self.top, self.reach = points, top, reach

    def of(self, rows: BatchRows, part: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Of the g objects in a part of the rows: their points' places in the batch g×top, the
        overlaps, the measures, and whether they are candidates at all."""
        overlap, image = rows.overlap(part, self.boxes), rows.image[part]
        scores = self.logits[image, labels].float().sigmoid()
        inside = _near(self.points, rows.boxes[part], self.reach)
        measure = scores.sqrt() * overlap.pow(6) * inside
        best, point = measure.topk(self.top, 1)
        place = image[:, None] * len(self.points) + point
        return place, overlap.gather(1, point), best, inside.gather(1, point)


def _near(points: Tensor, boxes: Tensor, reach: float) -> Tensor:
    """Which of A points lie in each of g boxes, widened to `reach`: g×A."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=reach)
    x, y = points.T.contiguous()
    beside = (x - centre[:, :1]).abs() < half[:, :1]
    return beside & ((y - centre[:, 1:]).abs() < half[:, 1:])


@dataclass(frozen=True)
class TaskAlignedLoss:
    """Binary cross-entropy on aligned targets plus GIoU, both over the sum of the targets."""

    strides: tuple[int, ...]
    box_weight: float = 2.5
    takes_scores: ClassVar = True

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Term]:
        """Loss terms "class" and "box"; finite also when no image has an object.

        `outputs` are class logits N×A×C and distances N×A×4 (see `VoVDetOutput`); targets and
        `image_size` (height, width) are in input pixels.
        """
        class_logits, distances = outputs
        points, strides = anchor_points(*image_size, self.strides)
        logits = class_logits.float()
        points, strides = points.to(logits.device), strides.to(logits.device)
        boxes = decode_distances(distances.float(), points, strides)
        point, label, weight, truth = assign(logits, boxes, points, targets)
        count = weight.sum()
        overlap = generalized_box_iou_loss(boxes.flatten(0, 1)[point], truth)
        # Cross-entropy of logit x and target t is softplus(x) - t·x, and few targets are not 0.
        told = logits.flatten(0, 1)[point, label]
        classes = nn.functional.softplus(logits).sum() - (told * weight).sum()
        return {
            "class": Term(classes, count),
            "box": Term(self.box_weight * (overlap * weight).sum(), count),
        }
