"""The SSD criterion: prior matching, softmax with hard negatives, smooth L1 (arXiv 1512.02325)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from vovnet.boxes.coding import decode_offsets, encode_offsets
from vovnet.losses.matching import match_priors
from vovnet.losses.target import Target, weights_of
from vovnet.losses.term import Term


@dataclass(frozen=True)
class MatchRule:
    """How priors are matched, encoded and mined."""

    threshold: float = 0.5
    variances: tuple[float, float] = (0.1, 0.2)
    negative_ratio: int = 3


@torch.no_grad()
def hard_negatives(background_loss: Tensor, positive: Tensor, ratio: int = 3) -> Tensor:
    """The negatives that train: per image the `ratio` × positives with the largest loss.

    `background_loss` and `positive` are N×A; so is the returned mask. An image without any
    positive trains its `ratio` hardest negatives, so that empty images teach too.
    """
    count = ratio * positive.sum(1, keepdim=True).clamp(min=1)
    deepest = min(int(count.max()), positive.shape[1]) if positive.numel() else 0
    hardest = background_loss.masked_fill(positive, -torch.inf).topk(deepest, 1).indices
    wanted = torch.arange(deepest, device=count.device) < count
    return torch.zeros_like(positive).scatter_(1, hardest, wanted) & ~positive


def multibox(
    logits: Tensor,
    offsets: Tensor,
    priors: Tensor,
    targets: Sequence[Target],
    rule: MatchRule,
    eligible: Tensor | None = None,
) -> tuple[Term, Term]:
    """Softmax over classes (column 0 is background) and smooth L1, both over all positives.

    `logits` N×A×(1+C), `offsets` N×A×4, `priors` A×4 or N×A×4 (centre x, centre y, width, height in
    input pixels). `eligible` N×A tells which priors may be negatives. Finite also when no image
    has an object: then the hardest negatives train alone and the box term is 0. An object with a
    score below 1 is the background by the rest of it, and counts by the score.
    """
    boxes, labels = torch.cat([t.boxes for t in targets]), torch.cat([t.labels for t in targets])
    corners = box_convert(priors, "cxcywh", "xyxy")
    matches = match_priors(corners, [t.boxes for t in targets], rule.threshold)
    positive = matches >= 0
    found = positive.nonzero(as_tuple=True)  # asked for once: each time, a GPU is waited for
    excluded = positive if eligible is None else positive | ~eligible
    with torch.no_grad():
        background = (logits.logsumexp(2) - logits[..., 0]).masked_fill(excluded, -torch.inf)
    negative = hard_negatives(background, positive, rule.negative_ratio) & ~excluded
    training = (positive | negative).nonzero(as_tuple=True)
    # A match of -1 is the last one, background.
    wanted = torch.cat([labels + 1, labels.new_zeros(1)])[matches[training]]
    classes = nn.functional.cross_entropy(logits[training], wanted, reduction="sum")
    count = positive.sum()
    truth = encode_offsets(boxes[matches[found]], priors.expand_as(offsets)[found], rule.variances)
    box = nn.functional.smooth_l1_loss(offsets[found], truth, reduction="sum")
    weights = weights_of(targets)
    if weights is not None:
        doubt = 1 - weights[matches[found]]
        # -log p of the background less that of the class is the difference of their logits.
        told = logits[found].gather(1, labels[matches[found]][:, None] + 1)[:, 0]
        classes = classes + (doubt * (told - logits[found][:, 0])).sum()
        each = nn.functional.smooth_l1_loss(offsets[found], truth, reduction="none").sum(1)
        box, count = box - (doubt * each).sum(), count - doubt.sum()
    return Term(classes, count), Term(box, count)


@dataclass(frozen=True)
class MultiBoxLoss:
    """The loss of an SSD-style detector; `priors` is A×4 (cx, cy, w, h) in input pixels."""

    priors: Tensor
    rule: MatchRule = MatchRule()
    takes_scores: ClassVar = True

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Term]:
        """Loss terms "class" and "box", each over the positives of the whole batch.

        `outputs` are class logits N×A×(1+C) and offsets N×A×4; see `multibox`.
        """
        logits, offsets = outputs[0].float(), outputs[1].float()
        priors = self.priors.to(logits.device)
        classes, box = multibox(logits, offsets, priors, targets, self.rule)
        return {"class": classes, "box": box}


@dataclass(frozen=True)
class RefineLoss:
    """RefineDet's loss: the anchors refined and told from background, then classes and boxes.

    The second step matches against the refined anchors, whose gradient is cut, and does not train
    on negatives that the first is sure of (arXiv 1711.06897 sections 3.1 and 3.3).
    `anchors` is A×4 (cx, cy, w, h) in input pixels.
    """

    anchors: Tensor
    rule: MatchRule = MatchRule()
    min_objectness: float = 0.01  # θ = 0.99 of background
    takes_scores: ClassVar = True

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor, Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Term]:
        """Loss terms "arm_class", "arm_box", "class" and "box"; `outputs`: `RefineDetOutput`."""
        arm_logits, arm_offsets, logits, offsets = (x.float() for x in outputs)
        anchors = self.anchors.to(logits.device)
        objects = [t._replace(labels=torch.zeros_like(t.labels)) for t in targets]
        arm_class, arm_box = multibox(arm_logits, arm_offsets, anchors, objects, self.rule)
        with torch.no_grad():
            refined = decode_offsets(arm_offsets, anchors, self.rule.variances)
            refined = box_convert(refined, "xyxy", "cxcywh")
            eligible = arm_logits.softmax(2)[..., 1] >= self.min_objectness
        classes, box = multibox(logits, offsets, refined, targets, self.rule, eligible)
        return {"arm_class": arm_class, "arm_box": arm_box, "class": classes, "box": box}
