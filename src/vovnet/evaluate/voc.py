"""Average precision as the PASCAL VOC development kit defines it (VOCevaldet.m, VOCap.m)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vovnet.data.record import Record
from vovnet.detections import Detections

_TRUE, _FALSE, _IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class VocResult:
    """AP of every class (float64, NaN for a class without counted truth) and their mean.

    `mean` is over the classes that have truth, NaN if there is none.
    """

    per_class: np.ndarray
    mean: float


def average_precision(
    found: np.ndarray, counted: np.ndarray, positives: int, use_07_metric: bool = True
) -> float:
    """Area under a precision-recall curve whose points are in order of falling score.

    At every point, `found` of the `counted` detections so far are true (both cumulative integers),
    of `positives` truths. VOC2007's measure is the mean of the best precision at recalls of at
    least 0, 0.1, … 1; that of 2010 and later is the area under the curve made monotonic. Without
    points it is 0.

    Recall is compared in whole numbers: as floats, 3 of 10 is below `linspace(0, 1, 11)[3]`.
    """
    # envelope[i]: the best precision at point i or later, the devkit's monotonic curve.
    precision = found / np.maximum(counted, 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if use_07_metric:
        # Recall never falls, so the points with recall >= t are those from one index on.
        return float(envelope[np.searchsorted(10 * found, np.arange(11) * positives)].mean())
    return float(np.diff(found / positives, prepend=0.0) @ envelope[:-1])


def voc_ap(
    predictions: Sequence[Detections],
    truths: Sequence[Record],
    num_classes: int,
    iou_threshold: float = 0.5,
    use_07_metric: bool = True,
) -> VocResult:
    """VOC AP of the detections in a list of images; `predictions[i]` belongs to `truths[i]`.

    The devkit's rules: in order of falling score (ties keep the order of images and detections)
    a detection is compared only with the truth of its class that it overlaps most (the first of
    equals). IoU >= threshold (py-faster-rcnn and its descendants use >) makes it true, or false
    if that truth was found already; it is ignored if that truth is `difficult`. Difficult truths
    do not count in recall. COCO's `crowd` truths are treated as difficult ones.

    The devkit adds 1 to widths since its corners are inclusive pixels. Boxes here are continuous
    (x1 = xmin - 1), so plain areas are the same numbers.

    Raises ValueError if the two sequences differ in length.
    """
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} predictions for {len(truths)} images")
    positives = np.zeros(num_classes, np.int64)
    scores, labels, outcomes = [np.empty(0, np.float32)], [np.empty(0, np.int64)], [np.empty(0)]
    for found, truth in zip(predictions, truths, strict=True):
        ignore = truth.difficult | truth.crowd
        positives += np.bincount(truth.labels[~ignore], minlength=num_classes)
        scores.append(found.scores)
        labels.append(found.labels)
        outcomes.append(_match(found, truth, ignore, iou_threshold))
    score, label, outcome = map(np.concatenate, (scores, labels, outcomes))
    per_class = np.full(num_classes, np.nan)
    for c in np.flatnonzero(positives):
        ranked = outcome[label == c][np.argsort(-score[label == c], kind="stable")]
        true, counted = np.cumsum(ranked == _TRUE), np.cumsum(ranked != _IGNORED)
        per_class[c] = average_precision(true, counted, int(positives[c]), use_07_metric)
    return VocResult(per_class, float(np.nanmean(per_class)) if positives.any() else math.nan)


def _match(found: Detections, truth: Record, ignore: np.ndarray, threshold: float) -> np.ndarray:
    """The outcome of every detection of one image, in the detections' order."""
    outcome = np.full(len(found), _FALSE)
    if not len(found) or not len(truth.boxes):
        return outcome
    overlap = _iou(found.boxes, truth.boxes)
    overlap[found.labels[:, None] != truth.labels] = -1
    best = overlap.argmax(1)
    hit = overlap.max(1) >= threshold
    outcome[hit & ignore[best]] = _IGNORED
    order = np.argsort(-found.scores, kind="stable")
    candidates = order[(hit & ~ignore[best])[order]]
    # np.unique gives the first index of each value: the best-scored detection of each truth.
    outcome[candidates[np.unique(best[candidates], return_index=True)[1]]] = _TRUE
    return outcome


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of N×4 and M×4 xyxy boxes: N×M float64, 0 where both are empty."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = sides.clip(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
