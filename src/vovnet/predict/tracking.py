"""Objects followed through the frames of a video, after ByteTrack (arXiv 2110.06864).

Boxes with high scores are matched first to where tracks are expected, those with low scores then to
the tracks that are left: an object that is half hidden is not lost. Only high ones begin a track.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from vovnet.detections import Detections
from vovnet.predict.assignment import assign
from vovnet.predict.frames import Frame
from vovnet.predict.row import Given

LOW = 0.1  # least score of a box that may go on with a track
_FAR, _FAR_LOW = (
    0.8,
    0.5,
)  # most of 1 - IoU at which a box, and a box with a low score, is a track's
_KEPT = 30  # frames for which a track that was lost is looked for
# What is not known of them in a frame, as shares of the height. The speed's is twice the
# original's: under a camera that turns it changes sooner (benchmarks/tracks.py).
_PLACE, _SPEED = 1 / 20, 1 / 80


class _Track:
    """Centre, width and height of an object, each with its speed, in a Kalman filter of its own."""

    def __init__(self, number: int, label: int, box: np.ndarray) -> None:
        self.number, self.label, self.lost = number, label, 0
        measured = _measure(box)
        self.mean = np.stack([measured, np.zeros(4)], 1)
        place, speed = 2 * _PLACE * measured[3], 10 * _SPEED * measured[3]
        self.covariance = np.tile(np.diag([place**2, speed**2]), (4, 1, 1))

    @property
    def box(self) -> np.ndarray:
        """Where it is, or is expected."""
        x, y, width, height = self.mean[:, 0]
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])

    def predict(self, step: float) -> None:
        """Let `step` frames go by."""
        move = np.array([[1.0, step], [0.0, 1.0]])
        height = max(self.mean[3, 0], 1.0)
        noise = np.diag([(_PLACE * height) ** 2, (_SPEED * height) ** 2]) * step
        self.mean = self.mean @ move.T
        self.covariance = move @ self.covariance @ move.T + noise
        self.mean[2:, 0] = self.mean[2:, 0].clip(1.0)

    def update(self, box: np.ndarray) -> None:
        """It was seen here."""
        measured = _measure(box)
        noise = (_PLACE * max(measured[3], 1.0)) ** 2
        gain = self.covariance[:, :, 0] / (self.covariance[:, 0, 0] + noise)[:, None]
        self.mean += gain * (measured - self.mean[:, 0])[:, None]
        self.covariance -= gain[:, :, None] * self.covariance[:, :1, :]
        self.lost = 0


class Tracker:
    """The tracks of one video: boxes with scores above `high` begin them."""

    def __init__(self, high: float) -> None:
        self._high, self._next = high, 1
        self._tracks: list[_Track] = []

    def update(self, found: Detections, step: float = 1.0) -> Detections:
        """The boxes of the next frame, `step` after the last, that are an object's, with `tracks`;
        what has a low score and goes on with none is left out."""
        for track in self._tracks:
            track.predict(step)
            track.lost += 1
        numbers = np.zeros(len(found), int)
        high = found.scores > self._high
        seen = self._match(found, high.nonzero()[0], _FAR, numbers, self._tracks)
        rest = [track for track in self._tracks if track not in seen and track.lost == 1]
        self._match(found, (~high).nonzero()[0], _FAR_LOW, numbers, rest)
        for row in (high & (numbers == 0)).nonzero()[0]:
            self._tracks.append(_Track(self._next, int(found.labels[row]), found.boxes[row]))
            numbers[row] = self._next
            self._next += 1
        self._tracks = [track for track in self._tracks if track.lost <= _KEPT]
        return replace(found, tracks=numbers)[numbers > 0]

    def _match(
        self,
        found: Detections,
        rows: np.ndarray,
        most: float,
        numbers: np.ndarray,
        tracks: list[_Track],
    ) -> list[_Track]:
        """Give boxes to tracks of their class, the nearest ones in all; returns these tracks."""
        if not len(rows) or not tracks:
            return []
        apart = 1 - _overlaps(np.stack([track.box for track in tracks]), found.boxes[rows])
        labels = np.array([track.label for track in tracks])
        apart[labels[:, None] != found.labels[rows][None]] = 2.0
        matched = []
        for index, column in assign(apart, most):
            row, track = rows[column], tracks[index]
            track.update(found.boxes[row])
            numbers[row] = track.number
            matched.append(track)
        return matched


def followed(
    frames: Iterable[tuple[Frame, Detections | None]], high: float
) -> Iterator[tuple[Frame, Detections | None]]:
    """The frames with what is found in them, in videos with `tracks`; each source has its own.
    Of pictures that are no video's, what has a score above `high`."""
    trackers: dict[Given, tuple[Tracker, int]] = {}
    for frame, found in frames:
        if frame.end:
            trackers.pop(frame.path, None)
        elif found is not None and frame.number is None:
            found = found[found.scores > high]
        elif found is not None and frame.number is not None:
            tracker, last = trackers.get(frame.path, (Tracker(high), frame.number - 1))
            found = tracker.update(found, max(1, frame.number - last))
            trackers[frame.path] = tracker, frame.number
        yield frame, found


class CountLine:
    """How many objects of each class have crossed a line, by tracks: "in" from its left to its
    right as one goes from the first point to the second, "out" the other way."""

    def __init__(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._start, self._end = np.array(start, float), np.array(end, float)
        self._last: dict[int, np.ndarray] = {}
        self.counts: dict[str, dict[str, int]] = {}

    def update(self, found: Detections) -> dict[str, dict[str, int]]:
        """The counts after a frame."""
        tracks = () if found.tracks is None else found.tracks.tolist()
        for number, label, box in zip(tracks, found.labels, found.boxes, strict=False):
            centre = (box[:2].astype(float) + box[2:]) / 2
            before = self._last.get(number)
            self._last[number] = centre
            if before is None or not self._crossed(before, centre):
                continue
            count = self.counts.setdefault(found.names[int(label)], {"in": 0, "out": 0})
            count["in" if self._side(centre) > 0 else "out"] += 1
        if len(self._last) > 10_000:  # the oldest are gone for long
            self._last = dict(list(self._last.items())[5_000:])
        return {name: dict(count) for name, count in self.counts.items()}

    def _side(self, point: np.ndarray) -> float:
        return _cross(self._end - self._start, point - self._start)

    def _crossed(self, one: np.ndarray, other: np.ndarray) -> bool:
        if (self._side(one) > 0) == (self._side(other) > 0):
            return False
        way = other - one
        ends = _cross(way, self._start - one), _cross(way, self._end - one)
        return ends[0] * ends[1] <= 0


def _cross(one: np.ndarray, other: np.ndarray) -> float:
    return float(one[0] * other[1] - one[1] * other[0])


def _measure(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box.astype(float)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of each box with each other one."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas, others_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    return shared / (areas[:, None] + others_areas[None] - shared).clip(1e-9)
