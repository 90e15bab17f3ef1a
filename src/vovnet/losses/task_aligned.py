"""Task-aligned assignment and loss for anchor-free heads (TOOD, arXiv 2108.07755; YOLOv8).

A point is a positive of a box when it is among the box's best by sqrt(score)·IoU⁶; its class
target is not 1 but grows with that measure, so that high scores go to well-placed boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances
from vovnet.losses.target import Target


class Assignment(NamedTuple):
    """Per point: class targets N×A×C in [0, 1] and the matched box N×A×4 (zeros where none)."""

    scores: Tensor
    boxes: Tensor


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of N×G×4 with N×A×4 xyxy boxes: N×G×A. Boxes without area give 0, never NaN."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    union = area_a[:, :, None] + area_b[:, None, :] - overlap
    return overlap / union.clamp(min=1e-9)


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    truth_boxes: Tensor,
    truth_labels: Tensor,
    *,
    top: int = 10,
    reach: float = 8.0,
) -> Assignment:
    """Match predictions (scores N×A×C, boxes N×A×4) to G padded truths (labels N×G, -1 = none).

    Candidates of a box are the points inside it, the box taken at least `reach` pixels to each
    side of its centre so that small objects have candidates too. A point wanted by several boxes
    goes to the one that its prediction overlaps most. All boxes are xyxy in input pixels.
    """
    num_classes = scores.shape[2]
    if truth_boxes.shape[1] == 0:
        return Assignment(torch.zeros_like(scores), torch.zeros_like(boxes))
    present = truth_labels >= 0
    overlap = pairwise_iou(truth_boxes, boxes)
    wanted = truth_labels.clamp(min=0)[:, :, None].expand(-1, -1, scores.shape[1])
    class_scores = scores.transpose(1, 2).gather(1, wanted)
    inside = _near(points, truth_boxes, reach) & present[:, :, None]
    measure = class_scores.sqrt() * overlap.pow(6) * inside

    best = measure.topk(min(top, measure.shape[2]), dim=2).indices
    chosen = torch.zeros_like(inside).scatter_(2, best, True) & inside
    # One box a point: of the boxes that chose it, the one it overlaps most.
    owner = overlap.masked_fill(~chosen, -1.0).argmax(1)
    positive = chosen.any(1)
    mine = nn.functional.one_hot(owner, truth_boxes.shape[1]).transpose(1, 2).bool()
    chosen &= mine

    measure = measure * chosen
    # sqrt(score)·IoU⁶ of a tiny object in a fresh network is around 1e-15.
    peak = measure.amax(2, keepdim=True).clamp(min=1e-30)
    ceiling = (overlap * chosen).amax(2, keepdim=True)
    quality = (measure / peak * ceiling).amax(1)
    labels = wanted[:, :, 0].gather(1, owner)
    one_hot = nn.functional.one_hot(labels, num_classes).to(scores.dtype)
    matched = truth_boxes.gather(1, owner[:, :, None].expand(-1, -1, 4))
    weight = quality * positive
    return Assignment(one_hot * weight[:, :, None], matched * positive[:, :, None])


def _near(points: Tensor, boxes: Tensor, reach: float) -> Tensor:
    """Which of A points lie in each of N×G boxes, widened to `reach`: N×G×A."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=reach)
    return ((points - centre[:, :, None]).abs() < half[:, :, None]).all(-1)


@dataclass(frozen=True)
class TaskAlignedLoss:
    """Binary cross-entropy on aligned targets plus GIoU, both over the sum of the targets."""

    strides: tuple[int, ...]
    box_weight: float = 2.5

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Loss terms "class" and "box", scalars; finite also when no image has an object.

        `outputs` are class logits N×A×C and distances N×A×4 (see `VoVDetOutput`); targets and
        `image_size` (height, width) are in input pixels.
        """
        class_logits, distances = outputs
        points, strides = anchor_points(*image_size, self.strides)
        logits = class_logits.float()
        points, strides = points.to(logits.device), strides.to(logits.device)
        boxes = decode_distances(distances.float(), points, strides)
        truth_boxes, truth_labels = _pad(targets)
        matched = assign(logits.detach().sigmoid(), boxes, points, truth_boxes, truth_labels)
        total = matched.scores.sum().clamp(min=1.0)
        weight = matched.scores.sum(2)
        positive = weight > 0
        overlap = generalized_box_iou_loss(boxes[positive], matched.boxes[positive])
        classes = nn.functional.binary_cross_entropy_with_logits(
            logits, matched.scores, reduction="sum"
        )
        return {
            "class": classes / total,
            "box": self.box_weight * (overlap * weight[positive]).sum() / total,
        }


def _pad(targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Targets of a batch as N×G×4 boxes and N×G labels, padded with zero boxes labelled -1."""
    boxes = nn.utils.rnn.pad_sequence([t.boxes for t in targets], batch_first=True)
    labels = nn.utils.rnn.pad_sequence(
        [t.labels for t in targets], batch_first=True, padding_value=-1
    )
    return boxes, labels
