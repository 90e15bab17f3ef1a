"""Overlap of many boxes with many, whole and in parts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from vovnet.boxes import iou
from vovnet.boxes.iou import iou_rows, pairwise_iou


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60], 1)


def test_equals_torchvision():
    a, b = random_boxes(5, 0), random_boxes(40, 1)
    overlap = pairwise_iou(a, b)
    assert overlap.gt(0).any()
    torch.testing.assert_close(overlap, box_iou(a, b), rtol=1e-6, atol=0)


def test_boxes_without_area_have_no_overlap():
    flat = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 0], [0, 0, 10, 10]])
    assert pairwise_iou(flat, flat).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_wild_boxes_have_an_overlap_too(bad):
    wild = torch.tensor([[bad, 0.0, 10.0, 10.0], [0.0, 0.0, bad, bad], [-bad, -bad, bad, bad]])
    for a, b in ((wild, random_boxes(9, 2)), (random_boxes(9, 2), wild), (wild, wild)):
        overlap = pairwise_iou(a, b)
        assert ((overlap >= 0) & (overlap <= 1)).all()


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 200))
@settings(deadline=None, max_examples=60)
def test_parts_are_the_whole(count, others, pairs):
    a, b = random_boxes(count, 3), random_boxes(others, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iou, "PAIRS", pairs)
        parts = list(iou_rows(a, b))
    assert [first for first, _ in parts] == list(range(0, count, max(1, pairs // max(1, others))))
    assert torch.equal(
        torch.cat([part for _, part in parts] or [torch.zeros(0, others)]), pairwise_iou(a, b)
    )
