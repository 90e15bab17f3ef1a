"""Suppression with NumPy alone finds what `vovnet.boxes.nms` finds with torch."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vovnet.boxes.nms import best_pairs, suppress
from vovnet.detect.found import Found
from vovnet.detect.options import Options
from vovnet.detect.suppress import COMPETING, best_found, best_of, survivors


def in_torch(boxes: np.ndarray, scores: np.ndarray, how: Options) -> list[np.ndarray]:
    pairs = best_pairs(torch.arange(len(boxes)), torch.from_numpy(scores), how.conf, COMPETING)
    found = suppress(torch.from_numpy(boxes)[pairs.rows], pairs, how)
    return [part.numpy() for part in found]


def compare(boxes: np.ndarray, scores: np.ndarray, how: Options) -> Found:
    found = best_found(boxes, scores, how)
    for ours, theirs in zip(found, in_torch(boxes, scores, how), strict=False):
        np.testing.assert_array_equal(ours, theirs)
    return found


def cloud(seed: int, count: int, classes: int, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of eighths of a pixel, so that sums are exact, and scores that are all different."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(-80, 800, (count, 2)) / 8
    sides = rng.integers(0, round(8 * side), (count, 2)) / 8
    scores = rng.permutation(count * classes).reshape(count, classes) / (count * classes)
    return np.concatenate([corners, corners + sides], 1).astype(np.float32), scores.astype("f4")


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    classes=st.integers(1, 4),
    side=st.sampled_from([2, 30, 100]),
    broken=st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=6),
    chosen=st.none() | st.sets(st.integers(0, 3), min_size=1),
    conf=st.sampled_from([0.0, 0.3, 0.9]),
    iou=st.sampled_from([0.01, 0.45, 0.5, 0.6, 1.0]),
    max_det=st.none() | st.integers(1, 5),
    agnostic=st.booleans(),
)
@example(0, 60, 1, 100, [np.inf] * 6, None, 0.0, 0.01, None, True)
def test_any_boxes(
    seed: int,
    count: int,
    classes: int,
    side: float,
    broken: list[float],
    chosen: set[int] | None,
    conf: float,
    iou: float,
    max_det: int | None,
    agnostic: bool,
):
    boxes, scores = cloud(seed, count, classes, side)
    for place, value in enumerate(broken[: boxes.size]):
        boxes.flat[(seed + 7 * place) % boxes.size] = value
    how = Options(conf, iou, max_det, chosen and tuple(chosen), agnostic)
    found = compare(boxes, scores, how)
    assert np.isfinite(found.boxes).all()


@pytest.mark.parametrize("agnostic", [False, True])
def test_more_than_can_compete(agnostic):
    boxes, scores = cloud(0, 900, 5, 40)
    found = compare(boxes, scores, Options(0.001, 0.6, None, None, agnostic))
    assert 100 < len(found.scores) <= 300
    found = compare(boxes, scores, Options(0.001, 1, 5000, None, agnostic))
    assert len(found.scores) == COMPETING


def test_what_touches_does_not_overlap():
    boxes = np.array([[0, 0, 9, 9], [9, 0, 18, 9], [8, 0, 17, 9]], np.float32)
    found = compare(boxes, np.array([[0.9], [0.8], [0.7]], np.float32), Options(iou=0))
    assert len(found.scores) == 2


def test_far_boxes_and_such_without_area():
    boxes = np.array([[0, 0, 0, 0]] * 2 + [[9e5, 9e5, 9.1e5, 9.1e5]] * 2, np.float32)
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], np.float32)
    assert len(compare(boxes, scores, Options(0.1)).scores) == 3


def test_ties_keep_the_order_of_the_boxes():
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 9]], np.float32)
    found = best_found(boxes, np.full((3, 1), 0.5, np.float32), Options())
    np.testing.assert_array_equal(found.boxes, boxes[:2])


def test_a_score_that_is_no_number_is_none():
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9]], np.float32)
    compare(boxes, np.array([[np.nan], [0.5]], np.float32), Options())


def test_what_was_dropped_drops_no_other():
    """The second overlaps both its neighbours, which do not overlap: it goes, the third stays."""
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert survivors(boxes, np.zeros(3, int), 0.3).tolist() == [0, 2]
    assert survivors(boxes, np.array([0, 1, 0]), 0.3).tolist() == [0, 1, 2]
    assert survivors(boxes, np.array([0, 1, 0]), 0.3, agnostic=True).tolist() == [0, 2]


def test_classes_are_chosen_before_the_most_is_taken():
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4) * 20
    boxes[:, 2:] += 30
    found = Found(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 1]))
    assert best_of(found, Options(max_det=1, classes=(1,))).scores.tolist() == [np.float32(0.8)]
