"""The SSD criterion: prior matching, softmax with hard negatives, smooth L1 (arXiv 1512.02325)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from vovnet.boxes.coding import encode_offsets
from vovnet.losses.target import Target


@torch.no_grad()
def match_priors(priors: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """Which box each prior answers for: A int64 indices into `boxes` (G×4 xyxy), -1 for none.

    `priors` is A×4 xyxy. Two steps as in SSD section 2.2: a bipartite match that gives every box
    the best prior still free, then every other prior takes its best box above `threshold`.
    """
    if len(boxes) == 0:
        return priors.new_full((len(priors),), -1, dtype=torch.int64)
    overlap = box_iou(boxes, priors)
    best, owner = overlap.max(0)
    matched = torch.where(best > threshold, owner, torch.full_like(owner, -1))
    free = overlap.clone()
    for _ in range(len(boxes)):
        value, flat = free.flatten().max(0)
        if value <= 0:
            break
        box, prior = divmod(int(flat), free.shape[1])
        matched[prior] = box
        free[box] = -1.0
        free[:, prior] = -1.0
    return matched


@torch.no_grad()
def hard_negatives(background_loss: Tensor, positive: Tensor, ratio: int = 3) -> Tensor:
    """The negatives that train: per image the `ratio` × positives with the largest loss.

    `background_loss` and `positive` are N×A; so is the returned mask. An image without any
    positive trains its `ratio` hardest negatives, so that empty images teach too.
    """
    loss = background_loss.masked_fill(positive, -torch.inf)
    count = ratio * positive.sum(1, keepdim=True).clamp(min=1)
    rank = loss.argsort(1, descending=True).argsort(1)
    return (rank < count) & ~positive


@dataclass(frozen=True)
class MultiBoxLoss:
    """Softmax over classes (column 0 is background) and smooth L1 on offsets, per positive prior.

    `priors` is A×4 (centre x, centre y, width, height) in input pixels.
    """

    priors: Tensor
    variances: tuple[float, float] = (0.1, 0.2)
    threshold: float = 0.5
    negative_ratio: int = 3

    def __call__(
        self,
        outputs: tuple[Tensor, Tensor],
        targets: Sequence[Target],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Loss terms "class" and "box", scalars, each over the positives of the whole batch.

        `outputs` are class logits N×A×(1+C) and offsets N×A×4. Finite also when no image has an
        object: then the hardest negatives train alone and the box term is 0.
        """
        logits, offsets = outputs[0].float(), outputs[1].float()
        priors = self.priors.to(logits.device)
        corners = box_convert(priors, "cxcywh", "xyxy")
        matches = torch.stack([match_priors(corners, t.boxes, self.threshold) for t in targets])
        positive = matches >= 0
        labels = torch.zeros_like(matches)
        wanted = torch.zeros_like(offsets)
        for i, target in enumerate(targets):
            mine = positive[i]
            index = matches[i, mine]
            labels[i, mine] = target.labels[index] + 1
            wanted[i, mine] = encode_offsets(target.boxes[index], priors[mine], self.variances)
        cross_entropy = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        ).view_as(labels)
        background = logits.logsumexp(2) - logits[..., 0]
        negative = hard_negatives(background, positive, self.negative_ratio)
        total = positive.sum().clamp(min=1)
        box = nn.functional.smooth_l1_loss(offsets[positive], wanted[positive], reduction="sum")
        return {"class": cross_entropy[positive | negative].sum() / total, "box": box / total}
