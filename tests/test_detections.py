import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vovnet.detections import Detections
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.images.drawing import draw_detections

NAMES = ("cat", "dog", "hot air balloon")


@st.composite
def some_detections(draw, masks: bool = False) -> Detections:
    count = draw(st.integers(0, 5))
    corners = draw(hnp.arrays(np.float32, (count, 2, 2), elements=st.floats(0, 1e4, width=32)))
    corners.sort(axis=1)
    return Detections(
        boxes=corners.reshape(count, 4),
        scores=draw(hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32))),
        labels=draw(hnp.arrays(np.int64, count, elements=st.integers(0, len(NAMES) - 1))),
        names=NAMES,
        masks=draw(hnp.arrays(np.bool_, (count, 4, 7))) if masks and count else None,
        image_size=(4, 7),
    )


def assert_same(a: Detections, b: Detections) -> None:
    for left, right in ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels)):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert (a.masks is None) == (b.masks is None)
    if a.masks is not None:
        np.testing.assert_array_equal(a.masks, b.masks)
    assert (a.mask_scores is None) == (b.mask_scores is None)
    if a.mask_scores is not None:
        np.testing.assert_array_equal(a.mask_scores, b.mask_scores)
    assert (a.names, a.image_size, a.path) == (b.names, b.image_size, b.path)


@settings(deadline=None, max_examples=60)
@given(some_detections(masks=True), st.booleans())
def test_dict_round_trip(found, scored):
    if scored and len(found):
        found = replace(found, mask_scores=found.scores[::-1])
    text = json.dumps(found.to_dict())
    assert_same(Detections.from_dict(json.loads(text), NAMES, image_size=(4, 7)), found)


@settings(deadline=None, max_examples=60)
@given(some_detections(masks=True), st.sampled_from([None, (), (7, 3, 90)]))
def test_coco_round_trip(found, category_ids):
    text = json.dumps(found.to_coco(0, category_ids))
    assert_same(
        Detections.from_coco(json.loads(text), NAMES, category_ids, image_size=(4, 7)), found
    )


def test_shapes_of_the_conversions():
    found = Detections([[1, 2, 4, 8]], [0.5], [1], NAMES)
    assert found.to_dict() == [
        {"label": "dog", "score": 0.5, "box": {"xmin": 1, "ymin": 2, "xmax": 4, "ymax": 8}}
    ]
    row = {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 6], "score": 0.5}
    assert found.to_coco(7) == [row]
    assert found.to_coco(7, (10, 20, 30)) == [{**row, "category_id": 20}]


@given(some_detections(masks=True))
@settings(deadline=None, max_examples=30)
def test_indexing(found):
    assert_same(found[:], found)
    assert_same(found[np.arange(len(found))], found)
    assert_same(found[np.ones(len(found), bool)], found)
    assert [len(one) for one in found] == [1] * len(found)
    keep = found.scores > 0.5
    assert_same(found[keep], found[np.flatnonzero(keep)])
    assert len(found[2:]) == max(len(found) - 2, 0)
    with pytest.raises(IndexError):
        found[len(found)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": np.zeros((2, 5))}, "boxes must be"),
        ({"boxes": np.zeros((3, 4))}, "boxes must be"),
        ({"boxes": np.zeros(4)}, "boxes must be"),
        ({"scores": np.zeros(())}, "scores must be"),
        ({"scores": np.zeros((2, 1))}, "scores must be"),
        ({"labels": np.zeros((2, 1))}, "labels must be"),
        ({"labels": np.zeros(1)}, "labels must be"),
        ({"labels": np.array([0, 3])}, "labels must lie"),
        ({"labels": np.array([-1, 0])}, "labels must lie"),
        ({"masks": np.zeros((2, 4))}, "masks must be"),
        ({"masks": np.zeros((1, 4, 4))}, "masks must be"),
    ],
)
def test_bad_shapes(changed, message):
    good = {"boxes": np.zeros((2, 4)), "scores": np.zeros(2), "labels": np.zeros(2)}
    Detections(**good, names=NAMES)
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        Detections(**{**good, **changed}, names=NAMES)


def test_unknown_names_and_categories():
    found = Detections([[0, 0, 1, 1]], [1], [0], ("dig",))
    with pytest.raises(UnknownNameError, match=r"unknown class 'dig'\. Did you mean dog"):
        Detections.from_dict(found.to_dict(), NAMES)
    with pytest.raises(ValueError, match="9"):
        Detections.from_coco(found.to_coco(0, (9,)), NAMES)


def test_to_supervision(monkeypatch):
    found = Detections([[0, 0, 1, 1], [0, 0, 2, 2]], [1, 0.5], [2, 0], NAMES)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=dict))
    converted = found.to_supervision()
    assert converted["xyxy"] is found.boxes
    assert converted["mask"] is None
    assert converted["data"]["class_name"].tolist() == ["hot air balloon", "cat"]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(VovnetError, match=r"pip install supervision$"):
        found.to_supervision()


def two_objects() -> Detections:
    return Detections(
        np.array([[10, 20, 50, 40], [0, 0, 100, 50]]),
        np.array([0.9, 0.5]),
        np.array([1, 0]),
        names=("cat", "dog"),
        image_size=(50, 100),
    )


def test_rows_and_yolo_lines_by_hand():
    assert two_objects().to_rows() == [
        {"label": "dog", "score": pytest.approx(0.9), "x1": 10, "y1": 20, "x2": 50, "y2": 40},
        {"label": "cat", "score": 0.5, "x1": 0, "y1": 0, "x2": 100, "y2": 50},
    ]
    assert two_objects().to_yolo() == [
        "1 0.300000 0.600000 0.400000 0.400000",
        "0 0.500000 0.500000 1.000000 1.000000",
    ]
    assert two_objects().to_yolo(scores=True)[1].endswith(" 1.000000 0.500000")
    with pytest.raises(ValueError, match="image_size is not known"):
        replace(two_objects(), image_size=None).to_yolo()


def test_they_print_readably():
    assert str(two_objects()).splitlines() == [
        "2 found in 100×50",
        "  dog          0.900  10.0 20.0 50.0 40.0",
        "  cat          0.500  0.0 0.0 100.0 50.0",
    ]


def test_plot_takes_the_picture_or_opens_it(tmp_path):
    pixels = np.full((50, 100, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    drawn = two_objects().plot(pixels)
    assert drawn.tobytes() == draw_detections(Image.fromarray(pixels), two_objects()).tobytes()
    assert replace(two_objects(), path=tmp_path / "a.png").plot().tobytes() == drawn.tobytes()
    with pytest.raises(ValueError, match="know no path"):
        two_objects().plot()
    with pytest.raises(ValueError, match="100×50, not"):
        two_objects().plot(pixels.transpose(1, 0, 2).copy())
