import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou

from vovnet.boxes.anchors import anchor_points
from vovnet.losses import Target, means
from vovnet.losses.fcos import FCOSLoss, match_points
from vovnet.models.centermask import CenterMaskOutput

STRIDES = (8, 16)
RANGES = ((0.0, 32.0), (32.0, torch.inf))
SIDE = 64


def reach() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    points, strides = anchor_points(SIDE, SIDE, STRIDES)
    return points, strides, torch.tensor(RANGES)[(strides > 8).long()]


def by_hand(point, stride, reached, boxes) -> tuple[int, float]:
    """The rules of FCOS for one point, in plain numbers."""
    best, chosen, centre = float("inf"), -1, 0.0
    x, y = point
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * stride
        if min(sides) <= 0 or not near or not reached[0] <= max(sides) <= reached[1]:
            continue
        area = (x2 - x1) * (y2 - y1)
        if area < best:
            left, top, right, bottom = sides
            across, along = min(left, right) / max(left, right), min(top, bottom) / max(top, bottom)
            best, chosen, centre = area, i, (across * along) ** 0.5
    return chosen, centre


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.integers(0, 2**31))
def test_points_are_matched_by_the_rules(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 3 + torch.rand(count, 2, generator=generator) * 60], 1)
    points, strides, reached = reach()
    said = match_points(points, strides, reached, boxes)
    wanted = [
        by_hand(*row, boxes.tolist())
        for row in zip(points.tolist(), strides.tolist(), reached.tolist(), strict=True)
    ]
    assert said.matched.tolist() == [index for index, _ in wanted]
    torch.testing.assert_close(said.centerness, torch.tensor([c for _, c in wanted]))


def outputs(truth: torch.Tensor | None) -> CenterMaskOutput:
    """Predictions that are right about `truth` (label 1), or that see nothing."""
    points, strides = anchor_points(SIDE, SIDE, STRIDES)
    logits = torch.full((1, len(points), 3), -12.0)
    distances = torch.ones(1, len(points), 4)
    centre = torch.full((1, len(points)), -9.0)
    if truth is not None:
        _, _, reached = reach()
        found = match_points(points, strides, reached, truth[None])
        logits[0, found.matched >= 0, 1] = 12.0
        sides = torch.cat([points - truth[:2], truth[2:] - points], 1)
        distances[0] = sides / strides[:, None]
        centre[0] = found.centerness.clamp(1e-4, 1 - 1e-4).logit()
    empty = torch.zeros(1)
    return CenterMaskOutput(*[empty] * 5, logits, distances, centre)


@pytest.mark.parametrize(
    ("reached", "matched"), [((0, 12), 0), ((12, 20), 0), ((0, 11.9), -1), ((12.1, 20), -1)]
)
def test_a_side_at_the_end_of_a_levels_reach_is_within(reached, matched):
    """From (16, 16) the farthest sides of the box are 12 pixels away."""
    one = [torch.tensor([x]) for x in ([16.0, 16.0], 8.0, reached)]
    found = match_points(*one, torch.tensor([[4.0, 6.0, 28.0, 26.0]]))
    assert found[0].tolist() == [matched]


def test_the_loss_knows_right_from_wrong_and_survives_nothing():
    def loss(*given) -> dict[str, torch.Tensor]:
        return means(FCOSLoss(STRIDES, RANGES)(*given))

    truth = torch.tensor([10.0, 12.0, 50.0, 44.0])
    target = Target(truth[None], torch.tensor([1]))
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    right = loss(outputs(truth), [target], (SIDE, SIDE))
    assert right["class"] < 1e-3
    assert right["box"] < 1e-3
    missed = loss(outputs(None), [target], (SIDE, SIDE))
    assert missed["class"] > 1
    assert missed["box"] > 0.3
    silent = loss(outputs(None), [nothing], (SIDE, SIDE))
    assert all(value < 1e-3 for value in silent.values())
    wrong = loss(outputs(truth), [nothing], (SIDE, SIDE))
    assert wrong["class"] > 1


def random_case(seed: int) -> tuple[CenterMaskOutput, list[Target]]:
    generator = torch.Generator().manual_seed(seed)
    count = len(reach()[0])
    logits = torch.randn(2, count, 3, generator=generator) * 2
    distances = torch.rand(2, count, 4, generator=generator) * 3 + 0.1
    centre = torch.randn(2, count, generator=generator)
    targets = []
    for objects in (2, 3):
        corner = torch.rand(objects, 2, generator=generator) * 30
        sides = 12 + torch.rand(objects, 2, generator=generator) * 20
        labels = torch.randint(3, (objects,), generator=generator)
        targets.append(Target(torch.cat([corner, corner + sides], 1), labels))
    return CenterMaskOutput(*[torch.zeros(1)] * 5, logits, distances, centre), targets


def test_the_loss_is_torchvisions():
    """Focal loss (α .25, γ 2) and centre-ness over the positives; the boxes' loss, which it takes
    plainly, is weighted here by the centre-ness wanted (FCOS improved), over the weights' sum."""
    points, strides, reached = reach()
    half = strides[:, None] / 2
    anchors = [torch.cat([points - half, points + half], 1)] * 2
    for seed in range(5):
        outputs, targets = random_case(seed)
        matches = [match_points(points, strides, reached, t.boxes) for t in targets]
        theirs = FCOSHead(32, 1, 3, 1).compute_loss(
            [{"boxes": t.boxes, "labels": t.labels} for t in targets],
            {
                "cls_logits": outputs.class_logits,
                "bbox_regression": outputs.distances,
                "bbox_ctrness": outputs.centerness[..., None],
            },
            anchors,
            [m.matched for m in matches],
        )
        said = means(FCOSLoss(STRIDES, RANGES)(outputs, targets, (SIDE, SIDE)))
        torch.testing.assert_close(said["class"], theirs["classification"])
        torch.testing.assert_close(said["centerness"], theirs["bbox_ctrness"])

        total, weights = 0.0, 0.0
        for image, (match, target) in enumerate(zip(matches, targets, strict=True)):
            for place in (match.matched >= 0).nonzero()[:, 0]:
                pixels = outputs.distances[image, place] * strides[place]
                box = torch.cat([points[place] - pixels[:2], points[place] + pixels[2:]])[None]
                truth = target.boxes[match.matched[place]][None]
                giou = generalized_box_iou(box, truth)[0, 0]
                total += float(match.centerness[place] * (1 - giou))
                weights += float(match.centerness[place])
        assert weights > 3
        assert float(said["box"]) == pytest.approx(total / weights, rel=1e-5)


def test_one_positive_by_hand():
    """At logit 0 a class wanted costs α · ¼ · log 2, any other (1 − α) · ¼ · log 2: α is .25."""
    loss = FCOSLoss((32,), ((0.0, torch.inf),))
    target = Target(torch.tensor([[4.0, 8.0, 28.0, 32.0]]), torch.tensor([0]))
    outputs = CenterMaskOutput(
        *[torch.zeros(1)] * 5,
        torch.zeros(1, 1, 2),
        torch.full((1, 1, 4), 0.5),  # (0, 0, 32, 32) seen from (16, 16)
        torch.zeros(1, 1),
    )
    terms = means(loss(outputs, [target], (32, 32)))
    log2 = math.log(2)
    assert float(terms["class"]) == pytest.approx((0.25 + 0.75) * 0.25 * log2)
    assert float(terms["box"]) == pytest.approx(1 - 24 * 24 / 32**2)  # its weight is cancelled
    # Left and right are 12 and 12, top and bottom 8 and 16: √(1 · ½); at logit 0 it costs log 2.
    assert float(match_points(*whole(), target.boxes).centerness) == pytest.approx(0.5**0.5)
    assert float(terms["centerness"]) == pytest.approx(log2)


def whole() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The one point of a 32×32 input at stride 32, which reaches everywhere."""
    points, strides = anchor_points(32, 32, (32,))
    return points, strides, torch.tensor([[0.0, torch.inf]])
