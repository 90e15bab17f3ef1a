"""Precision, recall and F1 over the confidence, and the confidence that is best for F1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vovnet.review.matches import Matches


@dataclass(frozen=True)
class Best:
    """The confidence at which F1 is greatest, and what it gives; `conf` is None where no
    confidence gives anything right."""

    conf: float | None
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision, recall and F1 of the detections with scores above each of `conf`; where no
    detection is left the precision is NaN. `count` is the number of objects."""

    name: str
    count: int
    conf: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def best(self) -> Best:
        """Of confidences that do equally well the middle one: it is the furthest from harm."""
        top = self.f1.max()
        if not top > 0:
            return Best(None, 0.0, 0.0, 0.0)
        first = int(self.f1.argmax())
        length = int((np.append(self.f1[first:], -1.0) < top).argmax())
        at = first + (length - 1) // 2
        return Best(
            float(self.conf[at]), float(top), float(self.precision[at]), float(self.recall[at])
        )


def confidences(least: float) -> np.ndarray:
    """What can be typed behind --conf: hundredths, from `least` on, above which all scores are
    known."""
    return np.arange(min(math.ceil(100 * least - 1e-9), 99), 100) / 100


def overall(matches: Matches, least: float) -> Curve:
    """The curve of all detections together, whatever their class."""
    objects = len(matches.object_score)
    return _curve("all", confidences(least), matches.score, matches.hit, objects)


def by_class(matches: Matches, names: Sequence[str], least: float) -> list[Curve]:
    """A curve for each class."""
    conf = confidences(least)
    return [
        _curve(
            name,
            conf,
            matches.score[matches.label == label],
            matches.hit[matches.label == label],
            int((matches.object_label == label).sum()),
        )
        for label, name in enumerate(names)
    ]


def _curve(name: str, conf: np.ndarray, score: np.ndarray, hit: np.ndarray, objects: int) -> Curve:
    shown, right = _above(conf, score), _above(conf, score[hit])
    with np.errstate(invalid="ignore"):
        precision = right / shown
    recall = right / max(objects, 1)
    f1 = 2 * right / np.maximum(shown + objects, 1)
    return Curve(name, objects, conf, precision, recall, f1)


def _above(conf: np.ndarray, score: np.ndarray) -> np.ndarray:
    """How many scores lie above each confidence, compared as float32 like `detect` does."""
    ordered = np.sort(score.astype(np.float32))
    return len(score) - np.searchsorted(ordered, conf.astype(np.float32), side="right")
