"""The doctor's own reading of COCO masks, against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from vovnet.data.mask_code import mask_fault, mask_shape

SQUARE = [[4, 4, 24, 4, 24, 24, 4, 24]]


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 1000))
def test_codes_have_the_area_and_bounds_that_pycocotools_says(height, width, share, seed):
    bitmap = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    code = coco.encode(np.asfortranarray(bitmap))
    text = {"size": code["size"], "counts": code["counts"].decode()}
    assert mask_fault(text, (height, width)) is None
    shape = mask_shape(text)
    if not bitmap.any():
        assert shape is None
        return
    assert shape is not None
    x, y, w, h = coco.toBbox(code).tolist()
    assert (shape.area, shape.bounds) == (bitmap.sum(), (x, y, x + w, y + h))


def test_long_runs():
    code = coco.encode(np.asfortranarray(np.ones((900, 800), np.uint8)))
    text = {"size": [900, 800], "counts": code["counts"].decode()}
    assert mask_fault(text, (900, 800)) is None
    shape = mask_shape(text)
    assert shape is not None
    assert (shape.area, shape.bounds) == (720_000, (0, 0, 800, 900))


def test_polygons():
    shape = mask_shape(SQUARE)
    assert shape == ((4, 4, 24, 24), 400, True)
    assert mask_shape([*SQUARE, [0, 0, 2, 0, 0, 2]]) == ((0, 0, 24, 24), 402, False)


@pytest.mark.parametrize(
    ("mask", "id_"),
    [
        (SQUARE, ""),
        ([], ""),
        (None, ""),
        ([[1, 2, 3, 4]], "VD501"),
        ([[]], "VD501"),
        ([[1, 2, 3, 4, 5, "6"]], "VD502"),
        ([7], "VD502"),
        (7, "VD502"),
        ({"counts": [4]}, "VD502"),
        ({"size": [2, 2]}, "VD502"),
        ({"size": [2, 2], "counts": [1, 2]}, "VD502"),
        ({"size": [2, 2], "counts": [-1, 5]}, "VD502"),
        ({"size": [2, 2], "counts": "~~"}, "VD502"),
        ({"size": [2, 2], "counts": "P"}, "VD502"),
        ({"size": [2, 2], "counts": "P" * 40}, "VD502"),
        ({"size": [3, 2], "counts": [6]}, "VD503"),
        ({"size": [2, 2], "counts": [0, 4]}, ""),
    ],
)
def test_faults(mask, id_):
    fault = mask_fault(mask, (2, 2))
    assert (fault[0] if fault else "") == id_
