import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from vovnet.boxes.anchors import anchor_points
from vovnet.losses import Target
from vovnet.losses.task_aligned import TaskAlignedLoss, assign, pairwise_iou

SIZE, STRIDES = (64, 96), (8, 16, 32)
POINTS, STEPS = anchor_points(*SIZE, STRIDES)
CLASSES = 3
NOTHING = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def random_boxes(count: int, generator: torch.Generator, low: float = 6.0) -> torch.Tensor:
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([96.0, 64.0])
    half = torch.rand(count, 2, generator=generator) * 20 + low / 2
    return torch.cat([centre - half, centre + half], 1)


def case(counts: list[int], seed: int) -> tuple[torch.Tensor, ...]:
    """Scores, boxes, truth boxes and labels, padded: a batch with so many truths an image."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(counts), len(POINTS), CLASSES, generator=generator)
    half = torch.rand(len(counts), len(POINTS), 4, generator=generator) * 24 + 1
    boxes = torch.cat([POINTS - half[..., :2], POINTS + half[..., 2:]], -1)
    # Only the label tells a padded row, here a box like any other.
    truths = torch.stack([random_boxes(max(counts), generator) for _ in counts])
    labels = torch.full((len(counts), max(counts)), -1)
    for i, count in enumerate(counts):
        truths[i, :count] = random_boxes(count, generator)
        labels[i, :count] = torch.randint(CLASSES, (count,), generator=generator)
    return scores, boxes, truths, labels


def test_pairwise_iou_equals_torchvision():
    generator = torch.Generator().manual_seed(0)
    a = torch.stack([random_boxes(5, generator) for _ in range(3)])
    b = torch.stack([random_boxes(40, generator) for _ in range(3)])
    overlap = pairwise_iou(a, b)
    assert overlap.gt(0).any()
    for i in range(3):
        torch.testing.assert_close(overlap[i], box_iou(a[i], b[i]))


def test_boxes_without_area_have_no_overlap():
    flat = torch.tensor([[[5.0, 5, 5, 5], [0, 0, 10, 0], [0, 0, 10, 10]]])
    assert pairwise_iou(flat, flat).tolist() == [[[0, 0, 0], [0, 0, 0], [0, 0, 1]]]


def plain_assign(
    scores: torch.Tensor, boxes: torch.Tensor, truths: torch.Tensor, labels: torch.Tensor, top: int
) -> dict[int, tuple[int, float]]:
    """One image, plain loops: point to (truth, target score) of every positive."""
    overlap = box_iou(truths, boxes).tolist()
    wish: dict[int, list[int]] = {}
    measure = {}
    for truth, box in enumerate(truths.tolist()):
        if labels[truth] < 0:
            continue
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        reach = (max(8.0, (box[2] - box[0]) / 2), max(8.0, (box[3] - box[1]) / 2))
        inside = []
        for point, (x, y) in enumerate(POINTS.tolist()):
            if abs(x - centre[0]) < reach[0] and abs(y - centre[1]) < reach[1]:
                score = float(scores[point, labels[truth]])
                measure[truth, point] = math.sqrt(score) * overlap[truth][point] ** 6
                inside.append(point)
        inside.sort(key=lambda point: -measure[truth, point])
        for point in inside[:top]:
            wish.setdefault(point, []).append(truth)
    owner = {p: max(truths, key=lambda t: overlap[t][p]) for p, truths in wish.items()}
    result = {}
    for point, truth in owner.items():
        mine = [p for p, t in owner.items() if t == truth]
        peak = max(measure[truth, p] for p in mine)
        ceiling = max(overlap[truth][p] for p in mine)
        result[point] = (truth, measure[truth, point] / max(peak, 1e-12) * ceiling)
    return result


@given(st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_assignment_equals_plain_loops(counts, seed):
    scores, boxes, truths, labels = case(counts, seed)
    found = assign(scores, boxes, POINTS, truths, labels, top=4)
    for i in range(len(counts)):
        expected = torch.zeros(len(POINTS), CLASSES)
        expected_boxes = torch.zeros(len(POINTS), 4)
        plain = plain_assign(scores[i], boxes[i], truths[i], labels[i], 4)
        for point, (truth, value) in plain.items():
            expected[point, labels[i, truth]] = value
            expected_boxes[point] = truths[i, truth]
        torch.testing.assert_close(found.scores[i], expected, atol=1e-5, rtol=1e-4)
        # A point that overlaps its truth by nothing counts for neither: its target is 0.
        sure = expected.sum(1) > 0
        assert torch.equal(found.boxes[i, sure], expected_boxes[sure])


def check_limits(case: tuple[torch.Tensor, ...], top: int) -> None:
    scores, boxes, truths, labels = case
    found = assign(scores, boxes, POINTS, truths, labels, top=top)
    assert torch.isfinite(found.scores).all()
    assert (found.scores >= 0).all()
    assert ((found.scores > 0).sum(2) <= 1).all()
    overlap = pairwise_iou(truths, boxes).masked_fill((labels < 0)[:, :, None], 0.0)
    assert (found.scores.amax(2) <= overlap.amax(2).amax(1, keepdim=True) + 1e-6).all()
    for image in range(len(scores)):
        for truth, label in zip(truths[image], labels[image], strict=True):
            own = (found.boxes[image] == truth).all(1) & (found.scores[image].sum(1) > 0)
            if label < 0:
                assert not own.any()
                continue
            assert own.sum() <= top
            assert (found.scores[image, own].argmax(1) == label).all()


@pytest.mark.parametrize("top", [1, 10, 1000])
@pytest.mark.parametrize("counts", [[3, 0, 7], [40, 1], [150]])
def test_limits_hold_also_in_a_crowd(counts, top):
    assert len(POINTS) < 150  # the last case has more truths than points
    check_limits(case(counts, 3), top)


def test_no_truths_at_all():
    scores, boxes, _, _ = case([1, 1], 0)
    for padded in (0, 2):
        truths, labels = torch.zeros(2, padded, 4), torch.full((2, padded), -1)
        found = assign(scores, boxes, POINTS, truths, labels)
        assert found.scores.shape == scores.shape
        assert found.boxes.shape == boxes.shape
        assert found.scores.eq(0).all()
        assert found.boxes.eq(0).all()


@pytest.mark.parametrize("side", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("corner", [(8.0, 8.0), (13.0, 27.0), (90.5, 60.5)])
def test_a_tiny_object_has_a_point(side, corner):
    """No cell centre lies in it, and an untrained network says boxes of about 4 strides."""
    x, y = corner
    truths = torch.tensor([[[x, y, x + side, y + side]]])
    reach = 2.127 * STEPS[:, None]  # softplus(2)
    boxes = torch.cat([POINTS - reach, POINTS + reach], 1)[None]
    scores = torch.full((1, len(POINTS), CLASSES), 0.01)
    found = assign(scores, boxes, POINTS, truths, torch.tensor([[2]]))
    own = found.scores[0, :, 2] > 0
    assert 1 <= own.sum() <= 10
    assert found.scores[0, :, :2].eq(0).all()
    centre = torch.tensor([x + side / 2, y + side / 2])
    assert ((POINTS[own] - centre).abs() < 8).all()


def outputs_for(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, len(POINTS), CLASSES, generator=generator) - 4
    distances = torch.rand(batch, len(POINTS), 4, generator=generator) * 4
    return logits.requires_grad_(), distances.requires_grad_()


def targets_for(counts: list[int], seed: int) -> list[Target]:
    _, _, boxes, labels = case([*counts, 1], seed)
    return [Target(boxes[i, :n], labels[i, :n]) for i, n in enumerate(counts)]


@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [150, 1]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_loss_and_gradients_are_finite(counts, scale):
    logits, distances = outputs_for(len(counts), 1)
    loss = TaskAlignedLoss(STRIDES)
    terms = loss((logits * scale, distances * scale), targets_for(counts, 1), SIZE)
    assert terms.keys() == {"class", "box"}
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(distances.grad).all()
    if not any(counts):
        assert terms["box"] == 0
        assert distances.grad.eq(0).all()


def test_loss_without_objects_by_hand():
    logits, distances = outputs_for(2, 4)
    terms = TaskAlignedLoss(STRIDES)((logits, distances), [NOTHING, NOTHING], SIZE)
    expected = sum(math.log1p(math.exp(v)) for v in logits.flatten().tolist())
    assert float(terms["class"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs(dtype):
    logits, distances = outputs_for(2, 6)
    targets = [NOTHING, *targets_for([3], 6)]
    loss = TaskAlignedLoss(STRIDES)
    half = (logits.to(dtype), distances.to(dtype))
    terms = loss(half, targets, SIZE)
    exact = loss((half[0].float(), half[1].float()), targets, SIZE)
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, exact[name])
    sum(terms.values()).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.ne(0).any()


def test_a_perfect_prediction_has_almost_no_loss():
    truth = Target(torch.tensor([[20.0, 10.0, 70.0, 50.0]]), torch.tensor([1]))
    logits, distances = outputs_for(1, 8)
    loss = TaskAlignedLoss(STRIDES)
    before = loss((logits, distances), [truth], SIZE)
    box = truth.boxes[0]
    exact = torch.cat([POINTS - box[:2], box[2:] - POINTS], 1) / STEPS[:, None]
    inside = (exact > 0).all(1)
    # Ten points are wanted; only they may say anything.
    chosen = inside.nonzero().flatten()[:10]
    assert len(chosen) == 10
    good = torch.full_like(logits, -20.0)
    good[0, chosen, 1] = 20.0
    after = loss((good, torch.where(inside[:, None], exact, 1.0)[None]), [truth], SIZE)
    assert float(after["class"].detach()) < 1e-4
    assert float(after["box"].detach()) < 1e-4
    for name in after:
        assert float(before[name].detach()) > 100 * float(after[name].detach())


def test_box_term_by_hand():
    """One truth, one point of one level inside: 2.5 × (1 − GIoU), whatever its score."""
    truth = Target(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0]))
    logits = torch.zeros(1, 4, 1)
    distances = torch.full((1, 4, 4), 0.5)
    # Points (16, 16), (48, 16), ... of stride 32; the first says (0, 0, 32, 32).
    terms = TaskAlignedLoss((32,))((logits, distances), [truth], (64, 64))
    # IoU = GIoU = 256/1024; its target score is that, and so small that the sum is taken as 1.
    assert float(terms["box"]) == pytest.approx(2.5 * (1 - 0.25) * 0.25)
    expected = 4 * math.log(2)  # at logit 0 the cross-entropy of any target
    assert float(terms["class"]) == pytest.approx(expected)
