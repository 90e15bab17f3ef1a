"""Large pictures, looked at tile by tile, so that small objects are not shrunk away."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vovnet.detect.run import AnyDetector
from vovnet.detections import Detections
from vovnet.errors import VovnetError

_ALIKE = 0.5  # overlap, within what two tiles share, from which two boxes are one object
_EDGE = 2.0  # pixels from a tile's inner edge up to which a box counts as cut off there


@dataclass(frozen=True)
class Tiling:
    """Squares of `side` pixels that overlap their neighbours by the share `overlap`."""

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 32:
            raise VovnetError(f"--tile {self.side}: must be at least 32 pixels")
        if not 0 <= self.overlap <= 0.9:
            raise VovnetError(f"--overlap {self.overlap}: must lie in 0..0.9")

    def boxes(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """The tiles of a picture, the last ones moved back to its edge; more than one, then the
        whole picture too, for what is larger than a tile."""
        tiles = [
            (x, y, min(x + self.side, width), min(y + self.side, height))
            for y in self._starts(height)
            for x in self._starts(width)
        ]
        return tiles if len(tiles) == 1 else [*tiles, (0, 0, width, height)]

    def _starts(self, length: int) -> list[int]:
        last = max(0, length - self.side)
        step = max(1, round(self.side * (1 - self.overlap)))
        return [*range(0, last, step), last]


class Seen(NamedTuple):
    """Boxes N×4 in pixels of the picture, each with the tile it was seen in, and whether that
    cuts it off."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tiles: np.ndarray
    cut: np.ndarray

    def at(self, rows: np.ndarray) -> "Seen":
        """The chosen ones."""
        return Seen(*(part[rows] for part in self))


def detect_tiled(
    detector: AnyDetector,
    image: Image.Image,
    tiling: Tiling,
    *,
    batch: int = 8,
    path: Path | None = None,
    **options: Any,
) -> Detections:
    """What is found in the tiles of an RGB picture and in the whole; objects that several of them
    see come once. `options` are those of `detect`.

    Raises `VovnetError` for a detector that draws masks.
    """
    if detector.masks:
        raise VovnetError(
            f"--tile: {detector.name} draws masks, which are not joined; leave it out"
        )
    places = tiling.boxes(image.width, image.height)
    found: list[Detections] = []
    for start in range(0, len(places), batch):
        crops = [image.crop(place) for place in places[start : start + batch]]
        found += detector.detect(crops, **options)
    seen = _gather(found, places, image)
    joined = join(seen, agnostic=bool(options.get("agnostic")))
    order = np.argsort(-joined.scores, kind="stable")[: options.get("max_det")]
    return replace(
        found[0],
        boxes=joined.boxes[order],
        scores=joined.scores[order],
        labels=joined.labels[order],
        image_size=(image.height, image.width),
        path=path,
    )


def _gather(
    found: list[Detections], places: list[tuple[int, int, int, int]], image: Image.Image
) -> Seen:
    parts: list[Seen] = []
    limits = np.array([0, 0, image.width, image.height], np.float64)
    for one, place in zip(found, places, strict=True):
        tile = np.array(place, np.float64)
        boxes = one.boxes + np.tile(tile[:2], 2)
        if (tile == limits).all():
            larger = ~_held(boxes, np.array(places[:-1], np.float64).reshape(-1, 4), limits)
            one, boxes = one[larger], boxes[larger]
        cut = ((np.abs(boxes - tile) <= _EDGE) & (tile != limits)).any(1)
        tiles = np.repeat(tile[None], len(boxes), 0)
        parts.append(Seen(boxes, one.scores, one.labels, tiles, cut))
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _held(boxes: np.ndarray, tiles: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which boxes some tile holds without cutting them off: there they are seen better. In the
    whole, where objects are small, much of this size is mistaken (benchmarks/tiles.py)."""
    inner = np.where(tiles == limits, 0.0, _EDGE) * [1, 1, -1, -1]
    room = (tiles + inner)[None]
    inside = (boxes[:, None, :2] >= room[..., :2]) & (boxes[:, None, 2:] <= room[..., 2:])
    return np.any(np.all(inside, axis=2), axis=1)


def join(seen: Seen, *, agnostic: bool = False) -> Seen:
    """Each object once: boxes that agree within what their tiles share are one.

    Of them the best that no tile cuts off stays; if all are cut off, what they cover together. Two
    boxes of one tile are two objects, for the detector told them apart.
    """
    seen = seen.at(np.lexsort((-seen.scores, seen.cut)))
    alive, kept = np.ones(len(seen.scores), bool), []
    boxes, tiles, scores = seen.boxes.copy(), seen.tiles.copy(), seen.scores.copy()
    for best in range(len(boxes)):
        if not alive[best]:
            continue
        kept.append(best)
        grown = True
        while grown:  # what it has grown over may meet a further tile's
            rest = best + 1 + alive[best + 1 :].nonzero()[0]
            if not agnostic:
                rest = rest[seen.labels[rest] == seen.labels[best]]
            same = rest[_agree(boxes[best], tiles[best], boxes[rest], tiles[rest])]
            alive[same] = False
            grown = len(same) > 0 and bool(seen.cut[best])
            if len(same):
                scores[best] = max(scores[best], scores[same].max())
            if grown:
                boxes[best] = _around(boxes[best], boxes[same])
                tiles[best] = _around(tiles[best], tiles[same])
    rows = np.array(kept, int)
    return seen._replace(boxes=boxes, scores=scores).at(rows)


def _agree(box: np.ndarray, tile: np.ndarray, others: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Which others show the same as a box, where both tiles can see it."""
    shared = np.concatenate(
        [np.maximum(tile[:2], tiles[:, :2]), np.minimum(tile[2:], tiles[:, 2:])], 1
    )
    one, other = _clipped(box[None], shared), _clipped(others, shared)
    both = _clipped(one, other)
    areas = _area(one) + _area(other) - _area(both)
    return (_area(both) > _ALIKE * areas) & (tile != tiles).any(1)


def _clipped(boxes: np.ndarray, to: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], to[:, :2]), np.minimum(boxes[:, 2:], to[:, 2:])
    return np.concatenate([low, high], 1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)


def _around(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    both = np.concatenate([box[None], others])
    return np.concatenate([both[:, :2].min(0), both[:, 2:].max(0)])
