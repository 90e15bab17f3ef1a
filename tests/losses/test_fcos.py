import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
