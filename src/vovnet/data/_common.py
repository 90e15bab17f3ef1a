"""What the dataset readers share: safe paths, clipped boxes, one-line errors."""

import difflib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from vovnet.data.record import Problem, Record
from vovnet.errors import DataError

MAX_TEXT_BYTES = 10_000_000
_SMALLEST_SIDE = 1e-3
# Boxes rescaled and rounded by a tool end a fraction of a pixel outside; that is no fault.
_ROUNDING = 0.25

Box = tuple[float, float, float, float]


class Frame(NamedTuple):
    """An image's (height, width) as displayed, and the EXIF orientation that its boxes still lack.

    The orientation is 1 where the boxes are drawn on the picture as displayed.
    """

    size: tuple[int, int]
    orientation: int = 1


def one_line(text: object) -> str:
    """`text` with line breaks and other unprintable characters escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of an annotation file; `DataError` if it is missing, no file, or over `limit`."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "no such file"
            raise DataError(f"{one_line(path)}: {what}; check the path")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{one_line(path)}: cannot be read ({one_line(error)})") from error
    if len(data) > limit:
        raise DataError(f"{one_line(path)}: over {limit} bytes; is this an annotation file?")
    return data


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Like `read_bytes`, decoded as UTF-8 with or without a byte-order mark."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{one_line(path)}: not UTF-8 text ({error}); save it as UTF-8") from error


class Folder:
    """Files below a folder, looked up by names that come from untrusted annotations.

    Each directory is listed once: existence and links are then known without a `stat` per file,
    which matters for 100,000 images on a network disk. Links may lead anywhere in the folder or in
    `home`, the whole data set.
    """

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._homes = (self._real, os.path.realpath(home or root))
        self._listings: dict[str, dict[str, bool]] = {}

    def find(self, name: str, where: str) -> Path | None:
        """The file `name` below the folder, or None if there is none.

        Raises `DataError`, beginning with `where`, for a name that leaves the folder: absolute,
        with "..", or through a symbolic link.
        """
        pure = PurePosixPath(name)
        if "\0" in name or leaves(name):
            raise DataError(f"{where}: file name {one_line(repr(name))} leaves the data folder")
        parent = str(pure.parent)
        if parent not in self._listings:
            self._listings[parent] = self._list(parent, where)
        link = self._listings[parent].get(pure.name)
        if link is None:
            return None
        path = self.root / pure
        if link:
            self._check(os.path.realpath(path), name, where)
        return path

    def _list(self, parent: str, where: str) -> dict[str, bool]:
        folder = os.path.join(self._real, parent)
        try:
            self._check(os.path.realpath(folder), parent, where)
            with os.scandir(folder) as entries:
                return {entry.name: entry.is_symlink() for entry in entries}
        except (OSError, ValueError):  # ValueError: a name that no file system can hold
            return {}

    def _check(self, real: str, name: str, where: str) -> None:
        if not any(Path(real).is_relative_to(home) for home in self._homes):
            raise DataError(
                f"{where}: {one_line(name)} is a link that leaves {one_line(self.root)}; "
                "copy the file there, or link the whole folder"
            )


def leaves(name: str) -> bool:
    """Whether a relative file name points outside its folder, going by its text."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or ".." in windows.parts


def clip_box(box: Box, size: tuple[int, int]) -> tuple[Box | None, str]:
    """`box` (xyxy pixels) clipped to an image of `size` (height, width), and its fault.

    The box is None if nothing of it is left; the fault is "" if there was none.
    """
    height, width = size
    if not all(map(math.isfinite, box)):
        return None, f"box {_show(box)} is not finite"
    x1, y1, x2, y2 = box
    clipped = (
        min(max(x1, 0.0), float(width)),
        min(max(y1, 0.0), float(height)),
        min(max(x2, 0.0), float(width)),
        min(max(y2, 0.0), float(height)),
    )
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < _SMALLEST_SIDE:
        return None, f"box {_show(box)} has no area in the {width}x{height} image"
    outside = max(-x1, -y1, x2 - width, y2 - height)
    if outside <= _ROUNDING:
        return clipped, ""
    return clipped, f"box {_show(box)} leaves the {width}x{height} image by {outside:.4g} px"


def turn_box(box: Box, frame: Frame) -> Box:
    """The xyxy box, in pixels of the frame as annotated, in pixels of the image as displayed."""
    (height, width), orientation = frame
    x1, y1, x2, y2 = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def place_box(box: Box, frame: Frame, where: str, problems: list[Problem]) -> Box | None:
    """`box` (xyxy pixels) clipped to the frame, its fault told in `problems`, then turned.

    None if nothing of it is left.
    """
    clipped, fault = clip_box(box, frame.size[::-1] if frame.orientation >= 5 else frame.size)
    if fault:
        problems.append(Problem(where, fault, "clipped" if clipped else "skipped"))
    return turn_box(clipped, frame) if clipped else None


def turned(where: str, orientation: int) -> Problem:
    """The report of an image whose boxes were turned."""
    what = f"its size and boxes are those before the image's EXIF orientation {orientation}"
    return Problem(where, what, "turned")


def _show(box: Box) -> str:
    return f"({', '.join(f'{value:.6g}' for value in box)})"


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


def check_unique(names: Sequence[str], where: object) -> None:
    """Raise `DataError` if a class name occurs twice."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(one_line(f"{where}: two classes have the same name {twice!r}; rename one"))


def unknown_split(source: Path, split: str, known: Iterable[str]) -> DataError:
    """The error for a split that `source` does not have."""
    known = sorted(known)
    near = difflib.get_close_matches(split, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    listed = ", ".join(known) if known else "none"
    return DataError(one_line(f"{source}: no split {split!r}.{hint} Splits that exist: {listed}."))
