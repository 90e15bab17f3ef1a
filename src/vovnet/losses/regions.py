"""What a two-stage detector learns from: anchors and regions matched, sampled and scored.

Faster R-CNN (arXiv 1506.01497 section 3.1.2), with the constants of FPN (arXiv 1612.03144). What
is drawn for an image follows from its target's seed, whatever images are computed with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from torchvision.ops import box_convert

from vovnet.boxes.coding import encode_offsets
from vovnet.boxes.iou import iou_rows
from vovnet.losses.target import Target
from vovnet.losses.term import Term
from vovnet.streams import stream_seed

BACKGROUND, BETWEEN = -1, -2
REGION_VARIANCES = (0.1, 0.2)  # of the second stage; the first stage has none
ANCHOR_VARIANCES = (1.0, 1.0)
_BETA = 1 / 9  # where smooth L1 turns from square to line


@torch.no_grad()
def match_anchors(anchors: Tensor, boxes: Tensor, high: float = 0.7, low: float = 0.3) -> Tensor:
    """Which box each anchor answers for: A int64 indices into `boxes`, `BACKGROUND` or `BETWEEN`.

    `anchors` A×4 and `boxes` G×4 are xyxy. An anchor takes the box it overlaps most if IoU ≥ `high`
    or if no anchor overlaps that box more (ties all count); it is background if its best IoU is
    below `low`, and does not train in between.
    """
    best = torch.zeros_like(anchors[:, 0], dtype=torch.float32)
    owner = torch.zeros_like(best, dtype=torch.int64)
    is_peak = torch.zeros_like(best, dtype=torch.bool)
    for first, overlap in iou_rows(boxes, anchors):
        value, box = overlap.max(0)
        owner = torch.where(value > best, box + first, owner)
        best = torch.maximum(best, value)
        is_peak |= ((overlap == overlap.amax(1, keepdim=True)) & (overlap > 0)).any(0)
    matched = torch.where(best >= high, owner, BETWEEN).masked_fill(best < low, BACKGROUND)
    return torch.where(is_peak, owner, matched)


def sampled(
    positive: Tensor, negative: Tensor, count: int, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Indices of at most `count`·`share` positives, drawn at random, and of negatives for the rest.

    `positive` and `negative` are vectors of bool.
    """
    generator = torch.Generator(positive.device).manual_seed(seed)
    chosen = _draw(positive, int(count * share), generator)
    return chosen, _draw(negative, count - len(chosen), generator)


def _draw(mask: Tensor, most: int, generator: torch.Generator) -> Tensor:
    indices = mask.nonzero()[:, 0]
    order = torch.randperm(len(indices), generator=generator, device=indices.device)
    return indices[order[:most]]


def proposal_loss(
    objectness: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[Target], most: int
) -> tuple[Term, Term]:
    """Binary cross-entropy and smooth L1 of the first stage, over `most` anchors an image.

    `objectness` N×A logits, `offsets` N×A×4 against `anchors` A×4 xyxy; half of the sample is
    positive where there are enough. Both are means over the sample.
    """
    centred = box_convert(anchors, "xyxy", "cxcywh")
    logits, labels, said, wanted = [], [], [], []
    for i, target in enumerate(targets):
        matched = match_anchors(anchors, target.boxes)
        seed = stream_seed(target.seed, "anchors")
        positive, negative = sampled(matched >= 0, matched == BACKGROUND, most, 0.5, seed)
        index = torch.cat([positive, negative])
        logits.append(objectness[i, index])
        labels.append((matched[index] >= 0).float())
        truth = target.boxes[matched[positive]]
        said.append(offsets[i, positive])
        wanted.append(encode_offsets(truth, centred[positive], ANCHOR_VARIANCES))
    score, label = torch.cat(logits), torch.cat(labels)
    classes = binary_cross_entropy_with_logits(score, label, reduction="sum")
    box = smooth_l1_loss(torch.cat(said), torch.cat(wanted), beta=_BETA, reduction="sum")
    count = label.new_full((), len(label))
    return Term(classes, count), Term(box, count)


class Regions(NamedTuple):
    """Regions of one image that train: boxes R×4 xyxy and R indices of objects, or BACKGROUND."""

    boxes: Tensor
    matched: Tensor

    @property
    def foreground(self) -> "Regions":
        """Those that answer for an object."""
        found = self.matched >= 0
        return Regions(self.boxes[found], self.matched[found])


@torch.no_grad()
def match_regions(proposals: Tensor, target: Target, threshold: float = 0.5) -> Regions:
    """Proposals P×4 and the true boxes themselves, each with the object it overlaps enough."""
    boxes = torch.cat([proposals, target.boxes])
    if len(target.boxes) == 0:
        return Regions(boxes, torch.full((len(boxes),), BACKGROUND, device=boxes.device))
    pieces = [overlap.max(1) for _, overlap in iou_rows(boxes, target.boxes)]
    best, owner = (torch.cat(column) for column in zip(*pieces, strict=True))
    return Regions(boxes, owner.masked_fill(best < threshold, BACKGROUND))


def sample_regions(regions: Regions, count: int, seed: int, share: float = 0.25) -> Regions:
    """At most `count` regions drawn at random, `share` of them with an object at the most."""
    found = regions.matched >= 0
    index = torch.cat(sampled(found, ~found, count, share, stream_seed(seed, "regions")))
    return Regions(regions.boxes[index], regions.matched[index])


def region_loss(
    logits: Tensor, offsets: Tensor, regions: Sequence[Regions], targets: Sequence[Target]
) -> tuple[Term, Term]:
    """Cross-entropy and smooth L1 of the second stage, means over all R regions of the batch.

    `logits` R×(1+C), column 0 is background; `offsets` R×C×4, a box for every class.
    """
    labels, rows, wanted = [], [], []
    for (boxes, matched), target in zip(regions, targets, strict=True):
        found = matched >= 0
        label = torch.zeros_like(matched)
        label[found] = target.labels[matched[found]] + 1
        labels.append(label)
        rows.append(found)
        centred = box_convert(boxes[found], "xyxy", "cxcywh")
        wanted.append(encode_offsets(target.boxes[matched[found]], centred, REGION_VARIANCES))
    label, row = torch.cat(labels), torch.cat(rows)
    said = offsets[row, label[row] - 1]
    box = smooth_l1_loss(said, torch.cat(wanted), beta=_BETA, reduction="sum")
    count = logits.new_full((), len(label), dtype=torch.float32)
    return Term(cross_entropy(logits, label, reduction="sum"), count), Term(box, count)
