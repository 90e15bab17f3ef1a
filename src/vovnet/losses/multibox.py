"""The SSD criterion: prior matching, softmax with hard negatives, smooth L1 (arXiv 1512.02325)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from vovnet.boxes.coding import decode_offsets, encode_offsets
from vovnet.boxes.iou import iou_rows, pairwise_iou
from vovnet.distributed import shared_total
from vovnet.losses.target import Target

_RANKED = 16  # priors that are ranked for every box at once
_Wish = tuple[int, int, int]  # a prior that a box wants: (less is better, box, prior)


@dataclass(frozen=True)
class MatchRule:
    """How priors are matched, encoded and mined."""

    threshold: float = 0.5
    variances: tuple[float, float] = (0.1, 0.2)
    negative_ratio: int = 3


@torch.no_grad()
def match_priors(priors: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which box each prior answers for: A int64 indices into `boxes` (G×4 xyxy), -1 for none.

    `priors` is A×4 xyxy. Two steps as in SSD section 2.2: a bipartite match that gives every box
    the best prior still free, then every other prior takes its best box above `threshold`. Of
    equal overlaps the first box and the first prior win. No tensor on the way exceeds 8 MB,
    unless a single row of the overlaps does.
    """
    best = torch.full_like(priors[:, 0], threshold, dtype=torch.float32)
    matched = torch.full_like(best, -1, dtype=torch.int64)
    rankings = []
    for first, overlap in iou_rows(boxes, priors):
        value, box = overlap.max(0)
        matched = torch.where(value > best, box + first, matched)
        best = torch.maximum(best, value)
        tops = _ranking_keys(overlap).topk(min(_RANKED, len(priors)), 1).values.tolist()
        rankings += [_ranking(i, boxes[i], priors, top) for i, top in enumerate(tops, first)]
    owners = _bipartite(rankings)
    matched[list(owners)] = matched.new_tensor(list(owners.values()))
    return matched


def _ranking_keys(overlap: Tensor) -> Tensor:
    """Overlap and prior in one integer each, G×A int64: larger is better, and none is equal.

    The bits of a float that is not negative order as it does; of equal overlaps the first prior is
    the better one.
    """
    count = overlap.shape[1]
    return (overlap.view(torch.int32).long() << 32) | torch.arange(
        count - 1, -1, -1, device=overlap.device
    )


def _ranking(index: int, box: Tensor, priors: Tensor, keys: list[int]) -> Iterator[_Wish]:
    """The priors that box `index` overlaps, best first; `keys` are its first few.

    More are computed only when asked for, each time twice as many: most boxes are content with
    one of their first.
    """
    while keys:
        for key in keys:
            overlap, place = key >> 32, key & 0xFFFFFFFF
            if overlap <= 0:
                return
            yield -overlap, index, len(priors) - 1 - place
        rest = _ranking_keys(pairwise_iou(box[None], priors))[0]
        rest = rest[rest < keys[-1]]
        keys = rest.topk(min(2 * len(keys), len(rest))).values.tolist()


def _bipartite(rankings: Sequence[Iterator[_Wish]]) -> dict[int, int]:
    """Prior to box: the best pair of which both are free, again and again."""
    owners: dict[int, int] = {}
    wishes = [wish for ranking in rankings if (wish := next(ranking, None))]
    heapify(wishes)
    while wishes:
        _, box, prior = wishes[0]
        if prior not in owners:
            owners[prior] = box
            heappop(wishes)
        elif wish := next(rankings[box], None):
            heapreplace(wishes, wish)
        else:
            heappop(wishes)
    return owners


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
) -> tuple[Tensor, Tensor]:
    """Softmax over classes (column 0 is background) and smooth L1, both over all positives.

    `logits` N×A×(1+C), `offsets` N×A×4, `priors` N×A×4 (centre x, centre y, width, height in
    input pixels). `eligible` N×A tells which priors may be negatives. Finite also when no image
    has an object: then the hardest negatives train alone and the box term is 0.
    """
    corners = box_convert(priors, "cxcywh", "xyxy")
    matches = torch.stack(
        [match_priors(c, t.boxes, rule.threshold) for c, t in zip(corners, targets, strict=True)]
    )
    positive = matches >= 0
    labels = torch.zeros_like(matches)
    wanted = torch.zeros_like(offsets)
    for i, target in enumerate(targets):
        mine = positive[i]
        index = matches[i, mine]
        labels[i, mine] = target.labels[index] + 1
        wanted[i, mine] = encode_offsets(target.boxes[index], priors[i, mine], rule.variances)
    excluded = positive if eligible is None else positive | ~eligible
    with torch.no_grad():
        background = (logits.logsumexp(2) - logits[..., 0]).masked_fill(excluded, -torch.inf)
    training = positive | hard_negatives(background, positive, rule.negative_ratio) & ~excluded
    classes = nn.functional.cross_entropy(logits[training], labels[training], reduction="sum")
    total = shared_total(positive.sum())
    box = nn.functional.smooth_l1_loss(offsets[positive], wanted[positive], reduction="sum")
    return classes / total, box / total


@dataclass(frozen=True)
class MultiBoxLoss:
    """The loss of an SSD-style detector; `priors` is A×4 (cx, cy, w, h) in input pixels."""

    priors: Tensor
    rule: MatchRule = MatchRule()

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Loss terms "class" and "box", scalars, each over the positives of the whole batch.

        `outputs` are class logits N×A×(1+C) and offsets N×A×4; see `multibox`.
        """
        logits, offsets = outputs[0].float(), outputs[1].float()
        priors = self.priors.to(logits.device).expand_as(offsets)
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

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor, Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Loss terms "arm_class", "arm_box", "class" and "box"; `outputs`: `RefineDetOutput`."""
        arm_logits, arm_offsets, logits, offsets = (x.float() for x in outputs)
        anchors = self.anchors.to(logits.device).expand_as(offsets)
        objects = [Target(t.boxes, torch.zeros_like(t.labels)) for t in targets]
        arm_class, arm_box = multibox(arm_logits, arm_offsets, anchors, objects, self.rule)
        with torch.no_grad():
            refined = decode_offsets(
                arm_offsets, self.anchors.to(logits.device), self.rule.variances
            )
            refined = box_convert(refined, "xyxy", "cxcywh")
            eligible = arm_logits.softmax(2)[..., 1] >= self.min_objectness
        classes, box = multibox(logits, offsets, refined, targets, self.rule, eligible)
        return {"arm_class": arm_class, "arm_box": arm_box, "class": classes, "box": box}
