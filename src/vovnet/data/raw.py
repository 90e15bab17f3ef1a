"""A data set as it is written, faults and all: what the reader of every layout returns."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vovnet.data.finding import Finding
from vovnet.data.frame import Box, Size

Layout = Literal["voc", "coco", "yolo"]


class RawBox(NamedTuple):
    """One object. `given` are its numbers as written, empty where they are none.

    They mean xmin, ymin, xmax, ymax (VOC, from 1), x, y, width, height (COCO), or fractions of the
    image (YOLO: cx, cy, w, h, or the points of a polygon). `name` is None for a class without name.
    `reread` says that `given` is not quite what is written: see `read_as_corners`.
    """

    number: int
    name: str | None
    given: tuple[float, ...]
    mask: Any = None
    area: object = None
    crowd: bool = False
    difficult: bool = False
    source: Any = None
    reread: bool = False

    @property
    def learned(self) -> bool:
        """Whether it is trained on, where nothing else is asked for."""
        return self.name is not None and bool(self.given) and not (self.crowd or self.difficult)


@dataclass(frozen=True)
class RawImage:
    """One image of a split; `key` is what it is known by in the whole set.

    `path` is None where there is no such file, `size` (height, width) as the annotation says it.
    `annotation` is its own file (VOC, YOLO), `source` its entry in the set's (COCO).
    """

    split: str
    key: str
    name: str
    path: Path | None
    boxes: tuple[RawBox, ...] = ()
    size: Size | None = None
    annotation: Path | None = None
    source: Any = None


@dataclass(frozen=True)
class RawSet:
    """Splits of the data set at `source`, its class names, and the faults of its files.

    `home` is its folder, from which a copy must stay away. `names` are those of the whole set, of
    which `splits` may be a part: then it is `partial`. `categories` are COCO's by id, one list for
    each split. `files` are COCO's JSON of each split, and YOLO's YAML under "".
    """

    layout: Layout
    source: Path
    home: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[RawImage, ...]]
    findings: tuple[Finding, ...] = ()
    categories: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    partial: bool = False

    def images(self) -> Iterator[RawImage]:
        """Every image once, in the first of `train`, `val`, `test` and the rest that has it."""
        seen: set[str] = set()
        splits = sorted(self.splits, key=split_rank)
        for image in (image for split in splits for image in self.splits[split]):
            if image.key not in seen:
                seen.add(image.key)
                yield image

    def learns(self, split: str) -> bool:
        """Whether a split is there to train on: by its name, or because there is no other."""
        return trains(split) or (len(self.splits) == 1 and not judges(split))


def read_as_corners(raw: RawSet) -> RawSet:
    """The set with boxes of four numbers taken for two corners each, as its layout writes them."""

    def reread(box: RawBox) -> RawBox:
        if len(box.given) != 4:
            return box
        a, b, c, d = box.given
        x, y = (a, b) if raw.layout == "coco" else ((a + c) / 2, (b + d) / 2)
        return box._replace(given=(x, y, c - a, d - b), reread=True)

    return _with_boxes(raw, reread)


def read_without_points(raw: RawSet) -> RawSet:
    """The YOLO set with lines taken for boxes, without the key points behind them."""
    return _with_boxes(
        raw, lambda b: b if len(b.given) <= 4 else b._replace(given=b.given[:4], reread=True)
    )


def _with_boxes(raw: RawSet, change: Callable[[RawBox], RawBox]) -> RawSet:
    return replace(
        raw,
        splits={
            split: tuple(replace(image, boxes=tuple(map(change, image.boxes))) for image in images)
            for split, images in raw.splits.items()
        },
    )


def split_rank(split: str) -> int:
    """Splits to train on first, then those to judge by; what joins others, like trainval, last."""
    if trains(split) and not split.startswith("trainval"):
        return 0
    return 1 if judges(split) else 2


def judges(split: str) -> bool:
    """Whether a split is one to judge by, going by its name."""
    return split.startswith(("val", "test", "eval"))


def trains(split: str) -> bool:
    """Whether a split is one to train on, going by its name."""
    return split.startswith("train")


def to_corners(layout: Layout, given: Sequence[float], size: Size) -> Box | None:
    """The written numbers as xyxy in continuous pixels of an image of `size`; None without any."""
    if not given:
        return None
    if layout == "voc":  # pixels counted from 1, both included
        x1, y1, x2, y2 = given
        return x1 - 1, y1 - 1, x2, y2
    if layout == "coco":
        x1, y1, width, height = given
        return x1, y1, x1 + width, y1 + height
    height, width = size
    if len(given) == 4:
        cx, cy, w, h = given
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    else:
        xs, ys = given[::2], given[1::2]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return x1 * width, y1 * height, x2 * width, y2 * height


def to_written(layout: Layout, box: Box, size: Size) -> tuple[float, ...]:
    """What `to_corners` reads as `box`; VOC in whole pixels where it can be."""
    x1, y1, x2, y2 = box
    if layout == "voc":
        return tuple(_whole(value) for value in (x1 + 1, y1 + 1, x2, y2))
    if layout == "coco":
        return x1, y1, x2 - x1, y2 - y1
    height, width = size
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def numbers(values: Sequence[float | str]) -> tuple[float, ...]:
    """All of `values` as finite floats, or () if one is none."""
    try:
        found = tuple(map(float, values))
    except (ValueError, OverflowError):
        return ()
    return found if all(map(math.isfinite, found)) else ()
