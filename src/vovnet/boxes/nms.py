"""From dense scores and boxes to the few that remain.

Three steps, so that the costly ones see little: `likely_rows` finds by one reduction of the logits
where a score can exceed the threshold, `best_pairs` ranks (box, class) pairs by score, and
`suppress` is given the boxes of those pairs only.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from vovnet.detect.options import MAX_DET, Options

# Coordinates beyond this many pixels do not come from an image; see `suppress`.
_FAR = 1e6


class Pairs(NamedTuple):
    """(box, class) pairs that compete: rows K (which box), labels K and scores K."""

    rows: Tensor
    labels: Tensor
    scores: Tensor


def likely_rows(logits: Tensor, conf: float, background: Tensor | None = None) -> Tensor:
    """The rows of A×C `logits` in which a score may exceed `conf`, as ascending indices.

    Scores are the logits' sigmoid; or, with A logits of the `background`, their softmax with it,
    which never exceeds the sigmoid of a logit less the background's. No row is missed; a row with
    a NaN is none.
    """
    if logits.shape[1] == 0:
        return torch.zeros(0, dtype=torch.int64, device=logits.device)
    best = logits.amax(1).float()
    if background is not None:
        best = best - background.float()
    # A hair lower than `conf`, because scores are rounded.
    bar = torch.tensor(0.9999 * min(max(conf, 0.0), 1.0)).logit().item()
    return (best >= bar).nonzero().squeeze(1)


def best_pairs(rows: Tensor, scores: Tensor, conf: float, most: int = 1000) -> Pairs:
    """The best `most` pairs whose score exceeds `conf`.

    `scores` is R×C without background, `rows` tells of which box each row is.
    """
    if len(scores) > most:
        # None of the best pairs stands outside the rows with the best maxima.
        best = scores.amax(1).nan_to_num(-1.0).topk(most).indices.sort().values
        rows, scores = rows[best], scores[best]
    place, labels = (scores > conf).nonzero(as_tuple=True)
    values = scores[place, labels]
    if len(values) > most:
        values, order = values.topk(most)
        place, labels = place[order], labels[order]
    return Pairs(rows[place], labels, values)


def suppress(
    boxes: Tensor, pairs: Pairs, how: Options, most: int = MAX_DET
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression of K boxes (xyxy), one a pair, within each class or among all.

    Returns boxes, scores and labels of the wanted classes, best first, at most `how.max_det` of
    them, else `most`, and every box finite.
    """
    stays = boxes.isfinite().all(1)  # what is not finite is no detection, and hides none
    if how.classes is not None:
        stays &= torch.isin(pairs.labels, pairs.labels.new_tensor(how.classes))
    boxes, pairs = boxes[stays], Pairs(*(part[stays] for part in pairs))
    # Classes are kept apart by shifting each past all others, in one run of the suppression.
    # In float64 the shifted boxes keep every digit; torchvision's batched_nms rounds them, and
    # loses them beside a box that is far outside the image or has negative coordinates.
    apart = boxes.double().clamp_(-_FAR, _FAR)
    if not how.agnostic:
        apart.add_(pairs.labels[:, None], alpha=3 * _FAR)
    keep = nms(apart, pairs.scores.double(), how.iou)[: how.max_det or most]
    return boxes[keep], pairs.scores[keep], pairs.labels[keep]
