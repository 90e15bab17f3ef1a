"""CIFAR-10's published files, in miniature; and files that pretend to be them."""

import pickle

import numpy as np
import pytest

from vovnet.data.cifar import TEST_FILES, TRAIN_FILES, read_cifar10
from vovnet.errors import DataError

RNG = np.random.default_rng(0)


class Evil:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return (print, ("unpickled",))


def write(path, data, labels, protocol=4):
    with open(path, "wb") as file:
        pickle.dump({b"data": data, b"labels": labels, b"batch_label": b"one"}, file, protocol)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_pixels_and_labels(tmp_path, protocol):
    data = RNG.integers(0, 256, (15, 3072), np.uint8)
    for number, name in enumerate(TRAIN_FILES):
        part = data[3 * number : 3 * number + 3]
        write(tmp_path / name, part, [number, number + 1, number + 5], protocol)
    found = read_cifar10(tmp_path, train=True)
    assert found.images.shape == (15, 32, 32, 3)
    assert found.labels.tolist() == [n + k for n in range(5) for k in (0, 1, 5)]
    # Stored channel by channel, row by row.
    assert found.images[7, 2, 30].tolist() == [data[7, 1024 * c + 32 * 2 + 30] for c in range(3)]


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (np.zeros((2, 3072), np.uint8), [0, 10], "labels must lie in 0..9"),
        (np.zeros((2, 3072), np.uint8), [0], "N×3072 bytes with N labels"),
        (np.zeros((2, 100), np.uint8), [0, 1], "N×3072 bytes with N labels"),
        (np.zeros((2, 3072)), [0, 1], "float64"),
        (np.zeros((0, 3072), np.uint8), [], "N×3072 bytes with N labels"),
        (Evil(), [0], "asks for builtins.print"),
    ],
)
def test_other_contents_are_refused(tmp_path, capsys, data, labels, message):
    write(tmp_path / TEST_FILES[0], data, labels)
    with pytest.raises(DataError, match=message):
        read_cifar10(tmp_path, train=False)
    assert not capsys.readouterr().out


def test_broken_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_cifar10(tmp_path, train=False)
    (tmp_path / TEST_FILES[0]).write_bytes(b"\x80\x02}q\x00(")
    with pytest.raises(DataError, match="not a file of CIFAR-10"):
        read_cifar10(tmp_path, train=False)
