"""Read CIFAR-10 as it is published: `cifar-10-batches-py`, pickled NumPy arrays."""

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vovnet.errors import DataError
from vovnet.text import one_line, read_bytes

TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)
SIDE = 32
_MOST_BYTES = 100_000_000  # of a file; they have 31 MB
_CLASSES = 10
# All that a pickled array needs. Anything else could run code.
_ALLOWED = {
    "numpy": {"ndarray", "dtype"},
    "numpy._core.multiarray": {"_reconstruct"},
    "numpy._core.numeric": {"_frombuffer"},
    "_codecs": {"encode"},
}


class Cifar(NamedTuple):
    """One split: images N×32×32×3 uint8 RGB, labels N int64, 0-based."""

    images: np.ndarray
    labels: np.ndarray


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and plain values, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # as NumPy 1 wrote it
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array needs not")
        return super().find_class(module, name)


def read_cifar10(folder: str | Path, *, train: bool) -> Cifar:
    """The training images, from all five files, or the test images.

    Raises `DataError` for a file that is missing, that holds anything but arrays and plain values,
    or whose arrays are not CIFAR's.
    """
    parts = [_read(Path(folder) / name) for name in (TRAIN_FILES if train else TEST_FILES)]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Cifar(images, labels)


def _read(path: Path) -> Cifar:
    data = read_bytes(path, _MOST_BYTES)
    try:
        # The published files were written by Python 2, whose texts are bytes.
        values = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        images = np.asarray(values[b"data"])
        labels = np.asarray(values[b"labels"])
    # A broken pickle can raise nearly anything.
    except Exception as error:
        raise DataError(
            f"{one_line(path)}: not a file of CIFAR-10 ({one_line(error)}); unpack "
            "cifar-10-python.tar.gz anew"
        ) from None
    count = len(labels) if labels.ndim else 0
    shaped = images.shape == (count, 3 * SIDE * SIDE) and labels.shape == (count,) and count > 0
    if not shaped or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{one_line(path)}: {images.dtype} {images.shape} with labels {labels.shape}; "
            "CIFAR-10 has N×3072 bytes with N labels"
        )
    if labels.min() < 0 or labels.max() >= _CLASSES:
        raise DataError(f"{one_line(path)}: labels must lie in 0..{_CLASSES - 1}")
    pixels = images.reshape(count, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Cifar(np.ascontiguousarray(pixels), labels.astype(np.int64))
