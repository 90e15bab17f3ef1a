import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from vovnet.boxes import iou
from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.iou import pairwise_iou
from vovnet.losses import Target, means
from vovnet.losses.task_aligned import Assignment, TaskAlignedLoss, assign

SIZE, STRIDES = (64, 96), (8, 16, 32)
POINTS, STEPS = anchor_points(*SIZE, STRIDES)
CLASSES = 3
NOTHING = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def random_boxes(count: int, generator: torch.Generator, low: float = 6.0) -> torch.Tensor:
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([96.0, 64.0])
    half = torch.rand(count, 2, generator=generator) * 20 + low / 2
    return torch.cat([centre - half, centre + half], 1)


def case(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, Target]:
    """Logits and boxes of every point of an image with so many objects."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(len(POINTS), CLASSES, generator=generator).logit()
    half = torch.rand(len(POINTS), 4, generator=generator) * 24 + 1
    boxes = torch.cat([POINTS - half[:, :2], POINTS + half[:, 2:]], -1)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return logits, boxes, Target(random_boxes(count, generator), labels)


def assign_one(
    logits: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, target: Target, **options: int
) -> Assignment:
    """A batch of one image."""
    return assign(logits[None], boxes[None], points, [target], **options)


def plain_assign(
    scores: torch.Tensor, boxes: torch.Tensor, target: Target, top: int
) -> dict[int, tuple[int, float]]:
    """Plain loops: point to (object, target score) of every positive."""
    overlap = box_iou(target.boxes, boxes).tolist()
    wish: dict[int, list[int]] = {}
    measure = {}
    for truth, box in enumerate(target.boxes.tolist()):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        reach = (max(8.0, (box[2] - box[0]) / 2), max(8.0, (box[3] - box[1]) / 2))
        inside = []
        for point, (x, y) in enumerate(POINTS.tolist()):
            if abs(x - centre[0]) < reach[0] and abs(y - centre[1]) < reach[1]:
                score = float(scores[point, target.labels[truth]])
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
        value = measure[truth, point] / max(peak, 1e-12) * ceiling
        if value > 0:
            result[point] = (truth, value)
    return result


@given(st.integers(0, 12), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_assignment_equals_plain_loops(count, seed):
    logits, boxes, target = case(count, seed)
    found = assign_one(logits, boxes, POINTS, target, top=4)
    expected = plain_assign(logits.sigmoid(), boxes, target, 4)
    assert sorted(found.points.tolist()) == sorted(expected)
    for point, label, score, box in zip(*found, strict=True):
        truth, value = expected[int(point)]
        assert label == target.labels[truth]
        assert float(score) == pytest.approx(value, rel=1e-4, abs=1e-5)
        assert torch.equal(box, target.boxes[truth])


@given(st.integers(0, 40), st.integers(0, 10**6), st.integers(1, 400))
@settings(deadline=None, max_examples=40)
def test_parts_assign_as_the_whole_does(count, seed, pairs):
    logits, boxes, target = case(count, seed)
    whole = assign_one(logits, boxes, POINTS, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iou, "PAIRS", pairs)
        parts = assign_one(logits, boxes, POINTS, target)
    # The end of a vector is rounded otherwise than its middle: scores may differ in the last digit.
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_a_batch_is_assigned_as_its_images_are(counts, seed):
    cases = [case(count, seed + i) for i, count in enumerate(counts)]
    logits, boxes, targets = zip(*cases, strict=True)
    batch = assign(torch.stack(logits), torch.stack(boxes), POINTS, targets)
    alone = [assign_one(*one[:2], POINTS, one[2]) for one in cases]
    points = torch.cat([found.points + i * len(POINTS) for i, found in enumerate(alone)])
    expected = Assignment(points, *(torch.cat(x) for x in list(zip(*alone, strict=True))[1:]))
    torch.testing.assert_close(batch, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("top", [1, 10, 1000])
@pytest.mark.parametrize("count", [1, 7, 40, 150])
def test_limits_hold_also_in_a_crowd(count, top):
    assert len(POINTS) < 150  # the last case has more objects than points
    logits, boxes, target = case(count, 3)
    found = assign_one(logits, boxes, POINTS, target, top=top)
    assert len(found.points) > 0
    assert len(found.points.unique()) == len(found.points)
    overlap = pairwise_iou(target.boxes, boxes).amax(0)[found.points]
    assert (found.scores > 0).all()
    # No point is told more than the best overlap of the object that it answers for.
    assert (found.scores <= pairwise_iou(found.boxes, boxes).amax(1) + 1e-6).all()
    assert (overlap > 0).all()
    for box, label in zip(target.boxes, target.labels, strict=True):
        own = (found.boxes == box).all(1)
        assert own.sum() <= top
        assert (found.labels[own] == label).all()


def test_of_equal_objects_the_first_has_the_points():
    logits, boxes, _ = case(0, 1)
    box = torch.tensor([[20.0, 10.0, 60.0, 50.0]])
    target = Target(box.repeat(3, 1), torch.tensor([2, 2, 2]))
    found = assign_one(logits, boxes, POINTS, target)
    alone = assign_one(logits, boxes, POINTS, Target(box, torch.tensor([2])))
    assert len(alone.points) == 10
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_of_objects_that_a_point_overlaps_alike_the_first_has_it():
    """Of other classes, which all points rate alike, so that all three objects want the same ones;
    and two boxes that lie to the left and to the right of what the middle points say."""
    _, boxes, _ = case(0, 1)
    logits = torch.zeros(len(POINTS), CLASSES)
    box = torch.tensor([[20.0, 10.0, 60.0, 50.0]])
    for labels in ([2, 0, 1], [1, 2, 0]):
        found = assign_one(logits, boxes, POINTS, Target(box.repeat(3, 1), torch.tensor(labels)))
        assert len(found.points) == 10
        assert found.labels.tolist() == labels[:1] * 10
    # One point at (16, 16) that says (0, 0, 32, 32): each of both covers half of it.
    halves = torch.tensor([[0.0, 0.0, 16.5, 32.0], [15.5, 0.0, 32.0, 32.0]])
    said, point = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[16.0, 16.0]])
    for order in ([0, 1], [1, 0]):
        target = Target(halves[order], torch.tensor(order))
        found = assign_one(torch.zeros(1, 2), said, point, target)
        assert found.labels.tolist() == order[:1]
        assert torch.equal(found.boxes, halves[order[:1]])


def test_no_objects_at_all():
    logits, boxes, target = case(0, 0)
    found = assign_one(logits, boxes, POINTS, target)
    assert [x.shape for x in found] == [(0,), (0,), (0,), (0, 4)]
    assert (found.points.dtype, found.labels.dtype) == (torch.int64, torch.int64)


def test_an_object_without_area_has_no_points():
    logits, boxes, _ = case(0, 0)
    target = Target(torch.tensor([[20.0, 10.0, 20.0, 50.0]]), torch.tensor([0]))
    assert len(assign_one(logits, boxes, POINTS, target).points) == 0


@pytest.mark.parametrize("side", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("corner", [(8.0, 8.0), (13.0, 27.0), (90.5, 60.5)])
def test_a_tiny_object_has_a_point(side, corner):
    """No cell centre lies in it, and an untrained network says boxes of about 4 strides."""
    x, y = corner
    target = Target(torch.tensor([[x, y, x + side, y + side]]), torch.tensor([2]))
    reach = 2.127 * STEPS[:, None]  # softplus(2)
    boxes = torch.cat([POINTS - reach, POINTS + reach], 1)
    found = assign_one(torch.full((len(POINTS), CLASSES), -4.6), boxes, POINTS, target)
    assert 1 <= len(found.points) <= 10
    assert (found.labels == 2).all()
    centre = torch.tensor([x + side / 2, y + side / 2])
    assert ((POINTS[found.points] - centre).abs() < 8).all()


def outputs_for(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, len(POINTS), CLASSES, generator=generator) - 4
    distances = torch.rand(batch, len(POINTS), 4, generator=generator) * 4
    return logits.requires_grad_(), distances.requires_grad_()


def targets_for(counts: list[int], seed: int) -> list[Target]:
    return [case(count, seed + i)[2] for i, count in enumerate(counts)]


@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [150, 1]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_loss_and_gradients_are_finite(counts, scale):
    logits, distances = outputs_for(len(counts), 1)
    loss = TaskAlignedLoss(STRIDES)
    terms = means(loss((logits * scale, distances * scale), targets_for(counts, 1), SIZE))
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
    terms = means(TaskAlignedLoss(STRIDES)((logits, distances), [NOTHING, NOTHING], SIZE))
    expected = sum(math.log1p(math.exp(v)) for v in logits.flatten().tolist())
    assert float(terms["class"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs(dtype):
    logits, distances = outputs_for(2, 6)
    targets = [NOTHING, *targets_for([3], 6)]
    loss = TaskAlignedLoss(STRIDES)
    half = (logits.to(dtype), distances.to(dtype))
    terms = means(loss(half, targets, SIZE))
    exact = means(loss((half[0].float(), half[1].float()), targets, SIZE))
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
    before = means(loss((logits, distances), [truth], SIZE))
    box = truth.boxes[0]
    exact = torch.cat([POINTS - box[:2], box[2:] - POINTS], 1) / STEPS[:, None]
    inside = (exact > 0).all(1)
    # Ten points are wanted; only they may say anything.
    chosen = inside.nonzero().flatten()[:10]
    assert len(chosen) == 10
    good = torch.full_like(logits, -20.0)
    good[0, chosen, 1] = 20.0
    after = means(loss((good, torch.where(inside[:, None], exact, 1.0)[None]), [truth], SIZE))
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
    terms = means(TaskAlignedLoss((32,))((logits, distances), [truth], (64, 64)))
    # IoU = GIoU = 256/1024; its target score is that, and so small that the sum is taken as 1.
    assert float(terms["box"]) == pytest.approx(2.5 * (1 - 0.25) * 0.25)
    expected = 4 * math.log(2)  # at logit 0 the cross-entropy of any target
    assert float(terms["class"]) == pytest.approx(expected)
