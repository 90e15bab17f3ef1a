"""The one record type that every data set comes to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vovnet.data.finding import Finding
from vovnet.data.frame import Box


@dataclass(frozen=True)
class Record:
    """One image of a dataset with its labelled objects.

    `boxes` is N×4 float32 xyxy in pixels of the image as displayed (EXIF applied), continuous
    coordinates: a box that covers the whole of a W×H image is (0, 0, W, H). `labels` is N int64,
    0-based into `Dataset.names`. `difficult` (VOC) and `crowd` (COCO) are N bool. N may be 0.
    `size` is (height, width) when the annotation gives it. `segmentations` holds one COCO
    segmentation (polygons or RLE) per box, [] for a box without, or is empty. `scores` is N
    float32, how sure a teacher is of each object: 1 for a label; None where all are labels.
    """

    path: Path
    image_id: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    size: tuple[int, int] | None = None
    areas: np.ndarray | None = None
    segmentations: tuple[Any, ...] = ()
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Dataset:
    """The records of one split, with class names and the source's category ids.

    `findings` are the faults that were met, with what was done about each. `teacher` tells who
    found the objects that are no labels.
    """

    root: Path
    split: str
    kind: str
    names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    teacher: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.records)


def make_record(
    path: Path,
    image_id: int,
    size: tuple[int, int],
    rows: Sequence[tuple[Box, int]],
    *,
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    areas: Sequence[float] | None = None,
    segmentations: Sequence[Any] = (),
) -> Record:
    """A `Record` of `rows` of (box, label)."""
    count = len(rows)
    return Record(
        path=path,
        image_id=image_id,
        boxes=np.array([box for box, _ in rows], dtype=np.float32).reshape(count, 4),
        labels=np.array([label for _, label in rows], dtype=np.int64),
        difficult=np.array(difficult or [False] * count, dtype=bool),
        crowd=np.array(crowd or [False] * count, dtype=bool),
        size=size,
        areas=None if areas is None else np.array(areas, dtype=np.float64),
        segmentations=tuple(segmentations),
    )


def trained(record: Record, difficult: bool) -> np.ndarray:
    """Which objects (N bool) are trained on: no crowds, those marked difficult only if asked."""
    return ~record.crowd if difficult else ~(record.crowd | record.difficult)
