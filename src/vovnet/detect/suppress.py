"""Dense boxes and scores to the few that remain, with NumPy alone.

It does what `vovnet.boxes.nms` does for torch, and gives the same: the best (box, class) pairs
compete, and of those that overlap only the best stays.
"""

import numpy as np

from vovnet.detect.found import Found
from vovnet.detect.options import MAX_DET, Options

COMPETING = 1000  # (box, class) pairs of an image


def best_found(
    boxes: np.ndarray, scores: np.ndarray, how: Options, masks: np.ndarray | None = None
) -> Found:
    """One image's detections from all A boxes (A×4 xyxy) and their A×C scores; `masks` are A
    rows of what masks are made of later."""
    rows, labels = (scores > how.conf).nonzero()
    values = scores[rows, labels]
    if len(values) > COMPETING:
        keep = np.argpartition(-values, COMPETING - 1)[:COMPETING]
        rows, labels, values = rows[keep], labels[keep], values[keep]
    order = np.argsort(-values, kind="stable")
    rows, labels, values = rows[order], labels[order], values[order]
    own = None if masks is None else masks[rows]
    return best_of(Found(boxes[rows], values, labels, own), how)


def best_of(found: Found, how: Options) -> Found:
    """What suppression leaves of pairs that stand in the order of their scores."""
    if how.classes is not None:
        found = _chosen(found, np.isin(found.labels, how.classes))
    keep = survivors(found.boxes, found.labels, how.iou, agnostic=how.agnostic)
    keep = keep[np.isfinite(found.boxes[keep]).all(1)][: how.max_det or MAX_DET]
    return _chosen(found, keep)


def first(found: Found, count: int | None) -> Found:
    """The best `count` of what was found; all for None."""
    return _chosen(found, np.arange(len(found.scores))[:count])


def survivors(
    boxes: np.ndarray, labels: np.ndarray, iou: float, *, agnostic: bool = False
) -> np.ndarray:
    """Indices, ascending, of boxes that no better one of their class (`agnostic`: of any) overlaps
    by more than `iou`; the boxes are in the order of their scores."""
    alive = np.ones(len(boxes), bool)
    boxes = boxes.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # boxes may be infinite
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for best in range(len(boxes)):
            if not alive[best]:
                continue
            rest = best + 1 + alive[best + 1 :].nonzero()[0]
            if not agnostic:
                rest = rest[labels[rest] == labels[best]]
            low = np.maximum(boxes[rest, :2], boxes[best, :2])
            high = np.minimum(boxes[rest, 2:], boxes[best, 2:])
            shared = (high - low).clip(0).prod(1)
            alive[rest[shared / (areas[rest] + areas[best] - shared) > iou]] = False
    return alive.nonzero()[0]


def _chosen(found: Found, which: np.ndarray) -> Found:
    masks, scores = (None if x is None else x[which] for x in (found.masks, found.mask_scores))
    return Found(found.boxes[which], found.scores[which], found.labels[which], masks, scores)
