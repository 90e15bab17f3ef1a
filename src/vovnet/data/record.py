"""The one record type that every dataset reader returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """One image of a dataset with its labelled objects.

    `boxes` is N×4 float32 xyxy in pixels of the image as displayed (EXIF applied), continuous
    coordinates: a box that covers the whole of a W×H image is (0, 0, W, H). `labels` is N int64,
    0-based into `Dataset.names`. `difficult` (VOC) and `crowd` (COCO) are N bool. N may be 0.
    `size` is (height, width) when the annotation gives it. `segmentations` holds one COCO
    segmentation (polygons or RLE) per box, or is empty.
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


@dataclass(frozen=True)
class Problem:
    """A fault in an annotation that was mended or skipped while reading.

    `where` names the file and the object ("000005.xml object 3"), `what` the fault,
    `action` is "clipped" (a box to its image), "skipped" (a line, an object or an image was left
    out) or "turned" (boxes drawn on the stored pixels, into the image as its EXIF displays it).
    """

    where: str
    what: str
    action: str


@dataclass(frozen=True)
class Dataset:
    """The records of one split, with class names and the source's category ids."""

    root: Path
    split: str
    kind: str
    names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.records)


def problem_lines(dataset: Dataset, limit: int = 10) -> list[str]:
    """The first `limit` problems of a dataset, a line each, and how many more there are."""
    lines = [f"{p.action}: {p.where}: {p.what}" for p in dataset.problems[:limit]]
    more = len(dataset.problems) - limit
    return [*lines, f"... and {more} more problems in {dataset.root}"] if more > 0 else lines


def trained(record: Record, difficult: bool) -> np.ndarray:
    """Which objects (N bool) are trained on: no crowds, those marked difficult only if asked."""
    return ~record.crowd if difficult else ~(record.crowd | record.difficult)
