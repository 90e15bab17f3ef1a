"""What is shown of all that was found: the ranges of the options, and classes by name or number."""

import pytest

from vovnet.detect.options import Options, class_labels
from vovnet.errors import UnknownNameError, VovnetError

NAMES = ("cat", "dog", "7", "bird")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"conf": -0.1}, "--conf -0.1: must lie in 0..1"),
        ({"conf": 1.5}, "--conf 1.5: must lie in 0..1"),
        ({"conf": float("nan")}, "--conf nan: must lie in 0..1"),
        ({"iou": 60}, "--iou 60: must lie in 0..1"),
        ({"max_det": 0}, "--max-det 0: must be at least 1"),
    ],
)
def test_ranges(options, told):
    with pytest.raises(VovnetError) as error:
        Options(**options)
    assert str(error.value) == told


def test_the_ends_of_the_ranges_are_in_them():
    for value in (0, 1):
        assert Options(value, value, 1).conf == value


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        (None, None),
        ("dog", (1,)),
        (3, (3,)),
        ("3", (3,)),
        ("7", (2,)),  # a name wins over a number
        (["bird", "cat", 0, "0"], (0, 3)),
        (iter(("dog",)), (1,)),
    ],
)
def test_classes(classes, labels):
    assert class_labels(classes, NAMES) == labels


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([], "--classes: names no class; leave it out to have all of them"),
        ("dgo", "unknown class 'dgo'. Did you mean dog?"),
        (-1, "unknown class '-1'. Known: cat, dog, 7, bird."),
        (4, "--classes 4: there are only 0 to 3"),
        (["cat", "99"], "--classes 99: there are only 0 to 3"),
        ("9" * 5000, "--classes 99999999999999999999: there are only 0 to 3"),
    ],
)
def test_classes_that_are_not_there(classes, told):
    with pytest.raises(VovnetError) as error:
        class_labels(classes, NAMES)
    assert str(error.value) == told
    assert isinstance(error.value, UnknownNameError) == told.startswith("unknown")
