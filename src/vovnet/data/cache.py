"""Decoded images between their files and the augmentation: kept in memory, on disk, or not."""

import errno
import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from filelock import FileLock
from PIL import Image

from vovnet.data.masks import record_masks
from vovnet.data.record import Record, trained
from vovnet.data.sample import Sample
from vovnet.errors import DataError, ImageError, VovnetError
from vovnet.files import cache_folder, open_atomically, write_atomically
from vovnet.images import open_image

_CHUNK = 64  # images decoded between two looks at the budget, or written to disk together

# What a network share says while it is away, and may not say again a little later.
_PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOTCONN", "EREMOTEIO"),
    )
    if hasattr(errno, name)  # not every system has them all
}
_PAUSES = (0.5, 2.0, 8.0)  # seconds before another try


class Decoded(NamedTuple):
    """Pixels H×W×3 uint8 and their scale against the whole image."""

    pixels: np.ndarray
    scale_x: float
    scale_y: float


class DecodedImages(Protocol):
    """The images of a dataset, decoded, by their index."""

    def __getitem__(self, index: int) -> Decoded: ...


def raw_sample(decoded: Decoded, record: Record, difficult: bool, masks: bool = False) -> Sample:
    """A decoded image with the objects that are trained on in its coordinates."""
    keep = trained(record, difficult)
    drawn = record_masks(record, keep) if masks else None
    pixels, *scale = decoded
    scores = None if record.scores is None else record.scores[keep]
    whole = Sample(pixels, record.boxes[keep], record.labels[keep], drawn, scores)
    return whole.moved(pixels, (scale[0], scale[1]), (0.0, 0.0))


def decode(record: Record, longest: int) -> Decoded:
    """The record's image, shrunk until its longer side has at most `longest` pixels.

    Where the disk or the network fails for the moment, it is tried again, for ten seconds; raises
    `ImageError`, or `DataError` if the image is not of the size that it was annotated at.
    """
    for pause in _PAUSES:
        try:
            return _decode(record, longest)
        except ImageError as error:
            if getattr(error.__cause__, "errno", None) not in _PASSING:
                raise
            time.sleep(pause)
    return _decode(record, longest)


def _decode(record: Record, longest: int) -> Decoded:
    image, (height, width) = open_image(record.path, shrink_to=longest)
    if record.size and record.size != (height, width):
        raise DataError(
            f"{record.path}: is {width}x{height}, and its annotation is for "
            f"{record.size[1]}x{record.size[0]}; put back the image that was annotated"
        )
    if max(height, width) > longest:
        size = shrunk((height, width), longest)[::-1]
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Decoded(np.asarray(image), image.width / width, image.height / height)


def shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The (height, width) of an image of that size once decoded."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def decoded_chunks(
    records: Sequence[Record], longest: int, threads: int
) -> Iterator[list[Decoded]]:
    """All images in order, decoded by several threads a chunk at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            yield list(pool.map(decode, chunk, [longest] * len(chunk)))


class ImageCache:
    """Decoded images, the longer side at most `longest` pixels, kept in memory while they fit.

    Images are kept until they fill `budget` bytes; the others are decoded each time. Kept ones
    are read before the workers fork, which then share the pages.
    """

    def __init__(
        self,
        records: Sequence[Record],
        longest: int,
        budget: float = math.inf,
        threads: int = 2,
    ) -> None:
        self.records = records
        self.longest = longest
        self._kept: list[Decoded] = []
        if budget <= 0:
            return
        for chunk in decoded_chunks(records, longest, threads):
            self._kept += chunk
            budget -= sum(pixels.nbytes for pixels, _, _ in chunk)
            if budget <= 0:
                break

    def __getitem__(self, index: int) -> Decoded:
        if index < len(self._kept):
            return self._kept[index]
        return decode(self.records[index], self.longest)


_ROW = np.dtype(
    [("start", "<i8"), ("height", "<i4"), ("width", "<i4"), ("scale_x", "<f8"), ("scale_y", "<f8")]
)
_MEND = "; give --cache off, or set VOVNET_CACHE to a folder with room"


class DiskCache:
    """Decoded images in one memory-mapped file, an index beside it, for all runs and processes.

    It lies in a folder named by the images' paths and by `longest`, under a name of the images'
    sizes and times of change: when these have changed, it is made anew in place of the old one.
    Processes of one machine share its pages; the first one makes it while the others wait. Raises
    `VovnetError` if the disk is full.
    """

    def __init__(
        self,
        records: Sequence[Record],
        longest: int,
        folder: Path | None = None,
        threads: int = 2,
    ) -> None:
        name, version = picture_hashes(records, str(longest))
        self.path = (folder or cache_folder()) / name / f"{version}.pixels"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name("lock")):
                self._index = _made(self.path, records, longest, threads)
        except OSError as error:
            raise VovnetError(f"{self.path}: {error.strerror}{_MEND}") from None
        self._pixels = _mapped(self.path)

    def __getitem__(self, index: int) -> Decoded:
        start, height, width, scale_x, scale_y = self._index[index].item()
        pixels = self._pixels[start : start + 3 * height * width]
        return Decoded(pixels.reshape(height, width, 3), scale_x, scale_y)

    def __getstate__(self) -> dict[str, Any]:
        """Without the map: a worker that does not fork opens the file, and gets no copy."""
        return {key: value for key, value in self.__dict__.items() if key != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = _mapped(self.path)


def picture_hashes(records: Sequence[Record], purpose: str) -> tuple[str, str]:
    """Of which images what is made for a purpose, and in which state they are."""
    names, states = hashlib.sha256(f"{purpose}\0".encode()), hashlib.sha256()
    for record in records:
        names.update(os.fsencode(os.path.realpath(record.path)) + b"\0")
        with suppress(OSError):  # decoding it says what is wrong
            status = os.stat(record.path)
            states.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
    return names.hexdigest()[:16], states.hexdigest()[:16]


def _mapped(path: Path) -> np.ndarray:
    # An array like any other: slices of the memory map's own type are slow to make.
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def _made(path: Path, records: Sequence[Record], longest: int, threads: int) -> np.ndarray:
    """The index of the pixels at `path`, which are written unless they are there."""
    index = _read_index(path, len(records))
    if index is not None:
        return index
    for other in path.parent.iterdir():  # of an earlier state of the images, or half written
        if other.name != "lock":
            with suppress(OSError):  # on Windows, a run may still read it
                other.unlink()
    return _write(path, records, longest, threads)


def _index_path(path: Path) -> Path:
    return path.with_suffix(".index.npy")


def _read_index(path: Path, count: int) -> np.ndarray | None:
    """The index of a cache file; None if there is none, or either was damaged."""
    try:
        index = np.load(_index_path(path), allow_pickle=False)
        size = path.stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    if index.dtype != _ROW or len(index) != count:
        return None
    ends = index["start"] + 3 * index["height"].astype(np.int64) * index["width"]
    starts = np.concatenate([[0], ends[:-1]])
    return index if size == ends[-1] and np.array_equal(index["start"], starts) else None


def _write(path: Path, records: Sequence[Record], longest: int, threads: int) -> np.ndarray:
    """Decode everything into the file; the index comes last, and says that the file is whole."""
    rows: list[tuple[int | float, ...]] = []
    with open_atomically(path, mend=_MEND) as file:
        for chunk in decoded_chunks(records, longest, threads):
            for pixels, scale_x, scale_y in chunk:
                rows.append((file.tell(), *pixels.shape[:2], scale_x, scale_y))
                file.write(np.ascontiguousarray(pixels).data)
    index = np.array(rows, _ROW)
    data = BytesIO()
    np.save(data, index, allow_pickle=False)
    write_atomically(_index_path(path), data.getvalue())
    return index


def open_cache(
    mode: Literal["ram", "disk", "off"],
    records: Sequence[Record],
    longest: int,
    *,
    budget: float = math.inf,
    folder: Path | None = None,
    threads: int = 2,
) -> DecodedImages:
    """The images decoded in memory as far as `budget` bytes reach, on disk below `folder` (None:
    the user's cache), or each time anew."""
    if mode == "disk":
        return DiskCache(records, longest, folder, threads)
    return ImageCache(records, longest, budget if mode == "ram" else 0.0, threads)
