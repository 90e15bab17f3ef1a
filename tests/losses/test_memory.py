"""Overlaps and matching never hold the whole matrix: the largest tensor on the way is measured."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import box_convert

from vovnet.boxes.anchors import anchor_points, prior_boxes
from vovnet.boxes.iou import pairwise_iou
from vovnet.losses import Target, means
from vovnet.losses.matching import match_priors
from vovnet.losses.multibox import RefineLoss
from vovnet.losses.regions import match_anchors, match_regions
from vovnet.losses.task_aligned import TaskAlignedLoss, assign
from vovnet.models.refinedet import anchor_levels

MB = 2**20
COUNT, SIZE = 1100, 512
PRIORS = prior_boxes(anchor_levels(SIZE))  # 16,320
STRIDES = (4, 8, 16)
POINTS, _ = anchor_points(SIZE, SIZE, STRIDES)  # 21,504


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            # A view, expanded ones too, holds no memory of its own.
            if isinstance(x, torch.Tensor) and not x._is_view():
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


def crowd(count: int = COUNT) -> Target:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 400
    size = torch.rand(count, 2, generator=generator) * 100 + 4
    return Target(torch.cat([corner, corner + size], 1), torch.arange(count) % 2)


def test_the_measure_sees_the_whole_matrix():
    target = crowd()
    with LargestTensor() as largest:
        pairwise_iou(target.boxes, box_convert(PRIORS, "cxcywh", "xyxy"))
    assert largest.bytes == COUNT * len(PRIORS) * 4 > 64 * MB


def test_matching_priors():
    with LargestTensor() as largest:
        matches = match_priors(box_convert(PRIORS, "cxcywh", "xyxy"), [crowd().boxes])
    assert 0 < largest.bytes <= 8 * MB
    assert len(matches.unique()) == COUNT + 1  # everyone has a prior, and some priors no one


def test_matching_anchors_and_regions():
    anchors, target = box_convert(PRIORS, "cxcywh", "xyxy"), crowd()
    with LargestTensor() as largest:
        assert len(match_anchors(anchors, target.boxes).unique()) > COUNT // 2
        assert len(match_regions(anchors, target).matched.unique()) == COUNT + 1
    assert 0 < largest.bytes <= 8 * MB


def test_assigning_points():
    boxes = torch.cat([POINTS - 20, POINTS + 20], 1)
    assert COUNT * len(POINTS) * 4 > 64 * MB
    with LargestTensor() as largest:
        found = assign(torch.zeros(1, len(POINTS), 2), boxes[None], POINTS, [crowd()])
    assert 0 < largest.bytes <= 4 * MB
    assert len(found.points) > COUNT


@pytest.mark.parametrize("kind", ["refine", "task-aligned"])
def test_criteria_in_a_crowd(kind):
    """A batch, so that what is held for every image would show too."""
    count = len(POINTS) if kind == "task-aligned" else len(PRIORS)
    logits, offsets = torch.zeros(2, count, 3, requires_grad=True), torch.zeros(2, count, 4)
    criterion, outputs = {
        "refine": (RefineLoss(PRIORS), (logits[..., :2], offsets, logits, offsets)),
        "task-aligned": (TaskAlignedLoss(STRIDES), (logits[..., :2], offsets + 3)),
    }[kind]
    with LargestTensor() as largest:
        terms = criterion(outputs, [crowd(), crowd(20)], (SIZE, SIZE))
        sum(means(terms).values()).backward()
    assert logits.grad.isfinite().all()
    assert 0 < largest.bytes <= 8 * MB
