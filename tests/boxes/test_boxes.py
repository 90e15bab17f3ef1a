import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from vovnet.boxes.anchors import PriorLevel, anchor_points, prior_boxes
from vovnet.boxes.coding import decode_distances, decode_offsets, encode_offsets

VARIANCES = (0.1, 0.2)
coordinate = st.floats(-50, 400, width=32)
side = st.floats(0.5, 300, width=32)


def corners(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes (centre x, centre y, width, height) in and around an image of 300 pixels."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(count, 4, generator=generator)
    return random * torch.tensor([300, 300, 150, 150]) + torch.tensor([0, 0, 2, 2])


box_and_prior = st.tuples(coordinate, coordinate, side, side, coordinate, coordinate, side, side)


@given(box_and_prior)
@settings(deadline=None, max_examples=60)
def test_decode_inverts_encode(values):
    box, prior = torch.tensor([values[:4]]), torch.tensor([values[4:]])
    # The code stops growing where a side is 62.5 times its prior's: see the next test.
    assume((box[:, 2:] / prior[:, 2:]).max() < 62)
    box = corners(box)
    again = decode_offsets(encode_offsets(box, prior, VARIANCES), prior, VARIANCES)
    torch.testing.assert_close(again, box, atol=2e-3, rtol=1e-4)


def test_wild_offsets_decode_to_finite_boxes():
    prior = torch.tensor([[100.0, 100.0, 16.0, 32.0]])
    box = decode_offsets(torch.tensor([[0.0, 0.0, 1e6, -1e6]]), prior, VARIANCES)
    # 1000/16 times 16 pixels is 1000 pixels: 500 to each side of x = 100.
    assert box.tolist() == [[pytest.approx(-400), 100.0, pytest.approx(600), 100.0]]


def test_offsets_by_hand():
    # A box 10 right of and 5 above a 20×40 prior, twice as wide and as high as it.
    prior = torch.tensor([[50.0, 50.0, 20.0, 40.0]])
    box = torch.tensor([[40.0, 25.0, 80.0, 65.0]])
    expected = [10 / 20 / 0.1, -5 / 40 / 0.1, math.log(2) / 0.2, 0.0]
    assert encode_offsets(box, prior, VARIANCES)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_offsets_equal_torchvision():
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    priors, boxes = random_boxes(50, 1), corners(random_boxes(50, 2))
    offsets = encode_offsets(boxes, priors, VARIANCES)
    theirs = coder.encode_single(boxes, corners(priors))
    torch.testing.assert_close(offsets, theirs, atol=1e-4, rtol=1e-4)
    wild = torch.randn(50, 4, generator=torch.Generator().manual_seed(3)) * 10
    decoded = decode_offsets(wild, priors, VARIANCES)
    torch.testing.assert_close(
        decoded, coder.decode_single(wild, corners(priors)), atol=1e-2, rtol=1e-4
    )
    # Leading dimensions are a batch.
    both = decode_offsets(torch.stack([wild, offsets]), priors, VARIANCES)
    assert torch.equal(both[0], decoded)
    torch.testing.assert_close(both[1], boxes, atol=1e-3, rtol=1e-4)


def test_decode_distances_by_hand():
    points = torch.tensor([[4.0, 12.0], [48.0, 16.0]])
    strides = torch.tensor([8.0, 32.0])
    distances = torch.tensor([[[0.5, 1.5, 2.0, 0.0], [0.0, 0.25, 0.5, 1.0]]])
    expected = [[[0.0, 0.0, 20.0, 12.0], [48.0, 8.0, 64.0, 48.0]]]
    assert decode_distances(distances, points, strides).tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (50, 33)])
def test_anchor_points_by_loops(height, width):
    expected = []
    for stride in (8, 16, 32):
        for row in range(-(-height // stride)):
            for column in range(-(-width // stride)):
                expected.append(((column + 0.5) * stride, (row + 0.5) * stride, stride))
    points, strides = anchor_points(height, width, (8, 16, 32))
    assert (points.dtype, strides.dtype) == (torch.float32, torch.float32)
    both = torch.cat([points, strides[:, None]], 1)
    assert [tuple(row) for row in both.tolist()] == expected


def test_prior_boxes_of_one_level():
    level = PriorLevel(cells=2, step=10.0, min_size=8.0, max_size=18.0, ratios=(4.0,))
    shapes = [(8, 8), (12, 12), (16, 4), (4, 16)]
    centres = [(5, 5), (15, 5), (5, 15), (15, 15)]
    expected = [[*centre, *shape] for centre in centres for shape in shapes]
    assert level.per_cell == 4
    assert prior_boxes([level]).tolist() == expected
