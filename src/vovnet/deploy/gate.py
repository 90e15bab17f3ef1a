"""The proof that an exported model finds what the weights find, and what it costs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from vovnet.data.record import Dataset
from vovnet.detect.pictures import Picture
from vovnet.detect.run import AnyDetector
from vovnet.detections import Detections
from vovnet.evaluate.run import evaluate

CONF = 0.05  # lower than in use: the more boxes, the stronger the proof
_SECONDS = 1.0  # of calls of each detector, for its speed


@dataclass(frozen=True)
class Likeness:
    """How two detectors' boxes on the same pictures compare, one by one.

    `boxes` were found by the first, `matched` of them by the other too: the same label, an IoU of
    0.5. The rest is of those: how far a corner is off in pixels of the picture, the least IoU, and
    how far scores are off. `extra` were found by the other alone.
    """

    pictures: int
    boxes: int
    matched: int
    extra: int
    max_abs_box_error: float
    min_iou: float
    max_score_error: float

    def is_exact(self) -> bool:
        """Whether the other computes the same, but for rounding; a score at the threshold may fall
        on either side of it."""
        few = max(1, round(0.01 * self.boxes))
        same = self.boxes - self.matched <= few and self.extra <= few
        return same and self.min_iou >= 0.99 and self.max_score_error <= 5e-3


def compare(first: AnyDetector, other: AnyDetector, pictures: Sequence[Picture]) -> Likeness:
    """Run both on the pictures and match what they find."""
    boxes = matched = extra = 0
    corners, overlaps, scores = [0.0], [1.0], [0.0]
    for picture in pictures:
        one, two = (d.detect(picture, conf=CONF) for d in (first, other))
        pairs = _pairs(one, two)
        boxes, matched, extra = (
            boxes + len(one),
            matched + len(pairs),
            extra + len(two) - len(pairs),
        )
        for i, j, iou in pairs:
            corners.append(float(np.abs(one.boxes[i] - two.boxes[j]).max()))
            overlaps.append(iou)
            scores.append(float(abs(one.scores[i] - two.scores[j])))
    errors = (max(corners), min(overlaps), max(scores))
    return Likeness(len(pictures), boxes, matched, extra, *errors)


def _pairs(one: Detections, two: Detections) -> list[tuple[int, int, float]]:
    """Objects of both that belong together, the best overlap first, each once."""
    overlaps = _iou(one.boxes, two.boxes) * (one.labels[:, None] == two.labels)
    found: list[tuple[int, int, float]] = []
    while overlaps.size and overlaps.max() >= 0.5:
        i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
        found.append((int(i), int(j), float(overlaps[i, j])))
        overlaps[i], overlaps[:, j] = 0, 0
    return found


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clip(1e-9)


def milliseconds(first: AnyDetector, other: AnyDetector, picture: Picture) -> tuple[float, float]:
    """Median time of `detect` on a decoded picture for both, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + 2 * _SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for detector, taken in zip((first, other), times, strict=True):
            began = time.perf_counter()
            detector.detect(picture)
            taken.append(time.perf_counter() - began)
    return median(times[0]) * 1e3, median(times[1]) * 1e3


def accuracies(detector: AnyDetector, dataset: Dataset) -> dict[str, float]:
    """What the gate goes by: "map_50" and "map_50_95", and those of masks if it draws them."""
    keys = ("map_50", "map_50_95", "mask_map_50", "mask_map_50_95")
    figures: dict[str, Any] = evaluate(detector, dataset)
    return {key: figures[key] for key in keys if figures.get(key) is not None}


def told(likeness: Likeness) -> dict[str, Any]:
    """The comparison as plain values."""
    return {key: round(v, 6) if isinstance(v, float) else v for key, v in asdict(likeness).items()}
