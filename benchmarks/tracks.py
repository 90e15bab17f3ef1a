"""Our tracks beside those of roboflow's `trackers` (pip install trackers), of the same boxes.

    python benchmarks/tracks.py [--scenes 20] [--frames 300]

Scenes are drawn by chance, with the truth known: "crossing" has twelve objects that cross each
other, "pan" eight under a camera that swings to and fro. A box lies a few pixels off; what another
hides by half is found with a low score, by more not at all; 5 % are missed, and boxes
of nothing appear. Both get the same thresholds. Without `trackers` only ours is measured.

Printed are means over the scenes: the share of all boxes of objects that have a track ("tracked"),
the share whose track is their object's own, one track an object (IDF1's hits), how often an object
changes its number, tracks an object, and milliseconds a frame.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from vovnet.detections import Detections
from vovnet.predict.assignment import assign
from vovnet.predict.tracking import Tracker, _overlaps

HIGH = 0.25
WIDTH, HEIGHT = 1280, 720


class Scene(NamedTuple):
    """Frame by frame: what is found, and which object each box is (-1: none)."""

    found: list[Detections]
    objects: list[np.ndarray]


Follow = Callable[[Detections], np.ndarray]  # a frame's boxes to their tracks, -1 for none


def paths(kind: str, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes frames×objects×4 of objects that go straight on; the first ones hide the later."""
    count = 12 if kind == "crossing" else 8
    sizes = rng.uniform((40, 60), (110, 180), (count, 2))
    start = rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2))
    speed = rng.normal(0, 3.0 if kind == "crossing" else 0.7, (count, 2))
    at = np.arange(frames)[:, None, None]
    centres = start + at * speed
    if kind == "crossing":  # back from the edges
        span = np.array([WIDTH, HEIGHT])
        centres = span - np.abs(centres % (2 * span) - span)
    else:
        centres[..., 0] += 250 * np.sin(at[..., 0] * 2 * np.pi / 90)  # up to 17 pixels a frame
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], 2)


def draw_scene(kind: str, frames: int, rng: np.random.Generator) -> Scene:
    """What a detector would find of it."""
    found, objects = [], []
    for boxes in paths(kind, frames, rng):
        hidden = np.array([_cover(boxes[:i], box) for i, box in enumerate(boxes)])
        scores = np.where(
            hidden > 0.5, rng.uniform(0.1, 0.25, len(boxes)), rng.uniform(0.4, 0.95, len(boxes))
        )
        here = (hidden < 0.8) & (rng.random(len(boxes)) > 0.05)
        nothing = rng.uniform((0, 0), (WIDTH, HEIGHT), (rng.poisson(0.3), 2))
        seen = boxes[here] + rng.normal(0, 2, (here.sum(), 4))
        all_boxes = np.concatenate([seen, np.concatenate([nothing, nothing + 70], 1)])
        all_scores = np.concatenate([scores[here], rng.uniform(0.1, 0.4, len(nothing))])
        labels = np.zeros(len(all_boxes), int)
        found.append(Detections(all_boxes, all_scores, labels, ("object",)))
        objects.append(np.concatenate([here.nonzero()[0], np.full(len(nothing), -1)]))
    return Scene(found, objects)


def _cover(others: np.ndarray, box: np.ndarray) -> float:
    """The largest share of a box that one of the others hides."""
    low, high = np.maximum(others[:, :2], box[:2]), np.minimum(others[:, 2:], box[2:])
    shared = (high - low).clip(0).prod(1) / (box[2:] - box[:2]).prod()
    return float(shared.max(initial=0.0))


def ours() -> Follow:
    """`vovnet predict --track`."""
    tracker = Tracker(HIGH)

    def follow(found: Detections) -> np.ndarray:
        kept = tracker.update(found)
        same = _overlaps(found.boxes.astype(float), kept.boxes.astype(float)) > 1 - 1e-6
        return np.array([kept.tracks[row][0] if row.any() else -1 for row in same], int)

    return follow


def theirs() -> Follow:
    """roboflow's ByteTrack with our thresholds."""
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(
        lost_track_buffer=30,
        track_activation_threshold=HIGH,
        high_conf_det_threshold=HIGH,
        minimum_iou_threshold=0.2,
        minimum_consecutive_frames=1,
    )

    def follow(found: Detections) -> np.ndarray:
        number = np.arange(len(found))
        given = supervision.Detections(found.boxes, None, found.scores, found.labels)
        given.data["number"] = number
        seen = tracker.update(given)
        tracks = np.full(len(found), -1)
        if len(seen):
            tracks[seen.data["number"]] = seen.tracker_id
        return tracks

    return follow


def judge(scene: Scene, follow: Follow) -> dict[str, float]:
    """How well the tracks are those of the objects."""
    start = time.perf_counter()
    tracks = [follow(found) for found in scene.found]
    ms = 1e3 * (time.perf_counter() - start) / len(tracks)
    pairs = list(_pairs(scene, tracks))
    numbers = {track: i for i, track in enumerate(sorted({t for _, t in pairs}))}
    objects = 1 + max(one for one, _ in pairs)
    hits = np.zeros((objects, len(numbers)))
    last: dict[int, int] = {}
    changes = 0
    for one, track in pairs:
        hits[one, numbers[track]] += 1
        changes += last.get(one, track) != track
        last[one] = track
    total = sum(int((known >= 0).sum()) for known in scene.objects)
    own = sum(hits[pair] for pair in assign(hits.max() - hits, hits.max()))
    return {
        "tracked": len(pairs) / total,
        "own": own / total,
        "changes": changes,
        "tracks_an_object": len(numbers) / objects,
        "ms": ms,
    }


def _pairs(scene: Scene, tracks: list[np.ndarray]) -> Iterator[tuple[int, int]]:
    for known, frame in zip(scene.objects, tracks, strict=True):
        for one, track in zip(known.tolist(), frame.tolist(), strict=True):
            if one >= 0 and track >= 0:
                yield one, track


def main() -> None:
    """Measure both, and print a line a scene's kind and tracker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--frames", type=int, default=300)
    given = parser.parse_args()
    ways = {"ours": ours} | ({"theirs": theirs} if find_spec("trackers") else {})
    for kind in ("crossing", "pan"):
        for way, make in ways.items():
            scenes = (
                draw_scene(kind, given.frames, np.random.default_rng(seed))
                for seed in range(given.scenes)
            )
            figures = [judge(scene, make()) for scene in scenes]
            means = {key: np.mean([one[key] for one in figures]) for key in figures[0]}
            print(kind, way, *(f"{key} {value:.3f}" for key, value in means.items()), flush=True)


if __name__ == "__main__":
    main()
