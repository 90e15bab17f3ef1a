"""The detections of a run's best evaluation, kept in its folder: a report needs no second one."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vovnet.data.record import Dataset, Record
from vovnet.detections import Detections
from vovnet.errors import DataError, VovnetError
from vovnet.files import write_atomically
from vovnet.text import one_line

KEPT = "evaluation.npz"
# What damaged archives, and arrays of other kinds and shapes, raise when they are read.
_DAMAGE = (ValueError, KeyError, TypeError, EOFError, NotImplementedError)
_DAMAGE += (zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Kept:
    """What was found, in the images of those file names, after that epoch (counted from 1)."""

    found: list[Detections]
    images: tuple[str, ...]
    names: tuple[str, ...]
    epoch: int

    def check(self, dataset: Dataset) -> None:
        """Raise `DataError` if these are other images or classes than those that were looked at."""
        images = tuple(record.path.name for record in dataset.records)
        if self.images != images or self.names != dataset.names:
            raise DataError(f"{one_line(dataset.root)}: holds other images or classes by now")


def save_kept(
    folder: Path,
    found: Sequence[Detections],
    records: Sequence[Record],
    names: Sequence[str],
    epoch: int,
) -> None:
    """Write the detections of all images into a run's folder; masks are left out."""
    data = io.BytesIO()
    np.savez_compressed(
        data,
        counts=np.array([len(one) for one in found], np.int64),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in found)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(one.labels for one in found)]),
        images=np.array([record.path.name for record in records], np.str_),
        names=np.array(names, np.str_),
        epoch=np.int64(epoch),
    )
    write_atomically(folder / KEPT, data.getvalue())


def load_kept(folder: Path) -> Kept | None:
    """What `save_kept` wrote; None where there is none. Raises `VovnetError` for a damaged file."""
    path = folder / KEPT
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        names = tuple(map(str, arrays["names"]))
        ends = np.cumsum(arrays["counts"])[:-1]
        columns = (np.split(arrays[key], ends) for key in ("boxes", "scores", "labels"))
        found = [Detections(b, s, labels, names) for b, s, labels in zip(*columns, strict=True)]
        images = tuple(map(str, arrays["images"]))
        if len(images) != len(arrays["counts"]):
            raise ValueError("not as many images as counts")
        return Kept(found if images else [], images, names, int(arrays["epoch"]))
    except (*_DAMAGE, OSError) as error:
        raise VovnetError(
            f"{one_line(path)}: damaged ({one_line(error)}); delete it and measure with vovnet val"
        ) from None
