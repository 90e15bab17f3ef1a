"""The three steps of decoding: likely rows, best pairs, suppression."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from vovnet.boxes.nms import Pairs, best_pairs, likely_rows, suppress
from vovnet.detect.options import Options


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area_a + area_b - width * height)


def plain_nms(
    boxes: list, scores: list, conf: float, iou: float, candidates: int, most: int
) -> list[tuple[float, int, list[float]]]:
    """Score, label and box of every survivor, best first, one class at a time."""
    pairs = [
        (score, label, box)
        for box, row in zip(boxes, scores, strict=True)
        for label, score in enumerate(row)
        if score > conf
    ]
    pairs = sorted(pairs, reverse=True)[:candidates]
    kept = []
    for score, label, box in pairs:
        if all(other[1] != label or overlap(box, other[2]) <= iou for other in kept):
            kept.append((score, label, box))
    return kept[:most]


@st.composite
def predictions(draw):
    """Boxes on a coarse grid, also outside the image; every score different."""
    count, classes = draw(st.integers(1, 14)), draw(st.integers(1, 3))
    edge, length = st.integers(-20, 20), st.integers(0, 25)
    boxes = []
    for _ in range(count):
        x, y = draw(edge), draw(edge)
        boxes.append([float(x), float(y), float(x + draw(length)), float(y + draw(length))])
    order = draw(st.permutations(range(count * classes)))
    scores = ((np.array(order) + 1) / 64).reshape(count, classes)
    return boxes, scores.tolist()


def select(
    boxes: torch.Tensor, scores: torch.Tensor, conf: float, iou: float, most: int = 1000
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both last steps, over dense boxes and scores; `most` pairs compete."""
    pairs = best_pairs(torch.arange(len(scores)), scores, conf, most)
    return suppress(boxes[pairs.rows], pairs, Options(iou=iou))


@given(predictions(), st.sampled_from([0.0, 0.26]), st.sampled_from([0.1234, 0.4567]))
@settings(deadline=None, max_examples=120)
def test_selection_equals_plain_loops(case, conf, iou):
    boxes, scores = case
    for candidates, most in ((1000, 300), (7, 300), (3, 300), (1000, 3)):
        pairs = best_pairs(torch.arange(len(boxes)), torch.tensor(scores), conf, candidates)
        found = suppress(torch.tensor(boxes)[pairs.rows], pairs, Options(iou=iou), most)
        expected = plain_nms(boxes, scores, conf, iou, candidates, most)
        assert found[1].tolist() == [row[0] for row in expected]
        assert found[2].tolist() == [row[1] for row in expected]
        assert found[0].tolist() == [row[2] for row in expected]


def test_rows_are_named_by_the_caller():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    pairs = best_pairs(torch.tensor([40, 7]), scores, 0.15)
    assert list(zip(*(x.tolist() for x in pairs[:2]), strict=True)) == [(40, 1), (7, 0), (7, 1)]


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-30, 0.01, 0.25, 0.5, 0.9, 0.9999999, 1.0, 1.5, -0.1]),
    st.sampled_from([0.1, 3.0, 40.0, 1e4]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@settings(deadline=None, max_examples=150)
def test_no_likely_row_is_missed(seed, conf, scale, dtype):
    """Scores just at the threshold too: the logits are moved until their scores straddle it."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(400, 4, generator=generator) * scale
    if 0 < conf < 1:
        logits[:200, 0] = logits[:200, 1] - torch.tensor(conf).logit()
        logits[:200, 2:] = logits[:200, :2].amin(1, keepdim=True) - 30
    logits = logits.to(dtype)
    for scores, likely in (
        (logits.float().sigmoid(), likely_rows(logits, conf)),
        (
            logits.float().softmax(1)[:, 1:],
            likely_rows(logits[:, 1:], conf, background=logits[:, 0]),
        ),
    ):
        wanted = (scores > conf).any(1).nonzero().flatten().tolist()
        assert set(wanted) <= set(likely.tolist())
        assert likely.tolist() == sorted(likely.tolist())


def test_likely_rows_are_few():
    """A row is likely only if a logit stands high enough over the background's."""
    logits = torch.tensor([[9.0, 0.0, 1.0], [0.0, 2.0, -5.0], [0.0, -1.0, -1.0], [5.0, 5.0, 4.0]])
    assert likely_rows(logits[:, 1:], 0.5, background=logits[:, 0]).tolist() == [1, 3]
    assert likely_rows(logits, 0.95).tolist() == [0, 3]


def test_nan_rows_are_not_likely():
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[0.0, nan, 9.0], [nan, 9.0, 9.0], [0.0, -inf, 9.0], [-inf, 9.0, 9.0]])
    assert likely_rows(logits[:, 1:], 0.25, background=logits[:, 0]).tolist() == [2, 3]


def test_nan_scores_do_not_compete():
    """Not even for one of the places: topk takes NaN for the greatest."""
    scores = torch.full((50, 2), float("nan"))
    scores[7], scores[30, 1] = torch.tensor([0.6, 0.5]), 0.9
    pairs = best_pairs(torch.arange(50), scores, 0.1, most=2)
    assert pairs.rows.tolist() == [7, 7]
    assert torch.equal(pairs.scores, torch.tensor([0.6, 0.5]))


def test_classes_stay_apart_left_of_the_image():
    """torchvision's batched_nms alone suppresses across classes when coordinates are negative."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-11.0, -11.0, 0.0, 0.0]])
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8]])
    assert len(batched_nms(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5)) == 1
    _, values, labels = select(boxes, scores, 0.1, 0.5)
    assert labels.tolist() == [0, 1]
    assert values.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("far", [1e5, 1e9, 3e38])
def test_a_wild_box_changes_nothing_for_the_others(far):
    """Beside it torchvision's batched_nms loses the digits of the rest, in float32."""
    boxes = torch.tensor([[10.0, 10, 50, 50], [12.0, 10, 52, 50], [60.0, 10, 90, 50]]).repeat(2, 1)
    labels = torch.tensor([0, 0, 0, 79, 79, 79])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    wild = torch.tensor([[-far, -far, far, far]])
    alone = suppress(boxes, Pairs(labels, labels, scores), Options(iou=0.5))
    assert alone[1].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.4])
    labels, scores = torch.cat([labels, labels[:1]]), torch.cat([scores, scores[:1] / 9])
    beside = suppress(torch.cat([boxes, wild]), Pairs(labels, labels, scores), Options(iou=0.5))
    assert beside[1].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.4, 0.1])
    assert torch.equal(beside[0], torch.cat([alone[0], wild]))


@pytest.mark.parametrize("iou", [0.5, 0.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_boxes_that_are_not_finite_are_dropped_and_hide_none(bad, iou):
    boxes = torch.tensor([[bad, 0.0, 10.0, 10.0], [0.0, 0, 10, 10], [0.0, 0, 10, 11]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    found, values, _ = select(boxes, scores, 0.1, iou)
    assert found.tolist() == [[0, 0, 10, 10]]
    assert values.tolist() == pytest.approx([0.8])


def test_suppression_equals_torchvision():
    """Boxes inside the image and few enough for the digits of torchvision's shifted boxes."""
    generator = torch.Generator().manual_seed(4)
    corner = torch.rand(900, 2, generator=generator) * 400
    boxes = torch.cat([corner, corner + torch.rand(900, 2, generator=generator) * 100], 1)
    labels = torch.randint(20, (900,), generator=generator)
    scores = torch.rand(900, generator=generator)
    keep = batched_nms(boxes, scores, labels, 0.45)
    assert 300 < len(keep) < 900
    found = suppress(boxes, Pairs(labels, labels, scores), Options(iou=0.45), most=900)
    for ours, theirs in zip(found, (boxes, scores, labels), strict=True):
        assert torch.equal(ours, theirs[keep])


@pytest.mark.parametrize(("count", "classes"), [(0, 3), (5, 3), (5, 0)])
def test_nothing_to_select(count, classes):
    scores = torch.full((count, classes), 0.2)
    boxes, values, labels = select(torch.zeros(count, 4), scores, 0.2, 0.5)
    assert (boxes.shape, values.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert labels.dtype == torch.int64
    assert len(likely_rows(scores, 0.9)) == 0
