import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou

from vovnet.boxes import iou
from vovnet.boxes.anchors import pyramid_anchors
from vovnet.losses import Target
from vovnet.losses.regions import (
    BACKGROUND,
    BETWEEN,
    Regions,
    match_anchors,
    match_regions,
    proposal_loss,
    region_loss,
    sample_regions,
)

examples = settings(deadline=None, max_examples=40)


def boxes(count: int, generator: torch.Generator, side: float = 128.0) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * side * 0.7
    return torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * side / 3], 1)


def anchors(side: int = 128) -> torch.Tensor:
    return torch.cat(pyramid_anchors(side, side, (8, 16, 32), (32, 64, 96), (0.5, 1.0, 2.0)))


@examples
@given(st.integers(1, 12), st.integers(0, 2**31))
def test_anchors_are_matched_as_torchvision_does(count, seed):
    truth = boxes(count, torch.Generator().manual_seed(seed))
    wanted = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(truth, anchors()))
    assert torch.equal(match_anchors(anchors(), truth), wanted)


def test_anchors_of_an_empty_image_are_background():
    assert (match_anchors(anchors(), torch.zeros(0, 4)) == BACKGROUND).all()


def test_every_box_has_an_anchor_and_some_anchors_sit_out():
    truth = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 90.0, 95.0]])
    matched = match_anchors(anchors(), truth)
    assert set(matched.tolist()) == {BACKGROUND, BETWEEN, 0, 1}


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operator made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() * t.element_size() for t in tree_leaves(out) if torch.is_tensor(t)]
        self.bytes = max([self.bytes, *sizes])
        return out


def test_matching_many_anchors_stays_below_64_megabytes():
    levels = pyramid_anchors(1024, 1024, (4, 8, 16, 32, 64), (32, 64, 128, 256, 512), (0.5, 1, 2))
    truth = boxes(200, torch.Generator().manual_seed(0), 1024)
    with Largest() as seen:
        matched = match_anchors(torch.cat(levels), truth)
    assert len(matched) * len(truth) * 4 > 200e6  # the whole matrix would not have fitted
    assert seen.bytes < 64e6


@examples
@given(st.integers(0, 2**31))
def test_the_first_stages_loss_is_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    here = anchors()
    targets = [Target(boxes(n, generator), torch.zeros(n, dtype=torch.int64)) for n in (3, 1)]
    objectness = torch.randn(2, len(here), generator=generator)
    offsets = torch.randn(2, len(here), 4, generator=generator)
    everything = 4 * len(here)  # so that nothing is left to chance
    said = proposal_loss(objectness, offsets, here, targets, everything)

    samples = {"training": 1, "testing": 1}
    theirs = RegionProposalNetwork(
        None, RPNHead(1, 1), 0.7, 0.3, everything, 0.5, samples, samples, 0.7
    )
    labels, matched = theirs.assign_targets_to_anchors(
        [here, here], [{"boxes": t.boxes} for t in targets]
    )
    wanted = theirs.box_coder.encode(matched, [here, here])
    # Theirs averages over positives and negatives too; order does not matter.
    reference = theirs.compute_loss(
        objectness.reshape(-1, 1), offsets.reshape(-1, 4), labels, wanted
    )
    torch.testing.assert_close([t.mean for t in said], [*reference], rtol=1e-5, atol=1e-6)


@examples
@given(st.integers(0, 2**31))
def test_the_second_stages_loss_is_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = [
        Target(boxes(n, generator), torch.randint(3, (n,), generator=generator)) for n in (4, 2)
    ]
    regions = [match_regions(boxes(20, generator), t) for t in targets]
    count = sum(len(r.boxes) for r in regions)
    logits = torch.randn(count, 4, generator=generator)
    offsets = torch.randn(count, 3, 4, generator=generator)
    said = region_loss(logits, offsets, regions, targets)

    labels, wanted = [], []
    for (box, matched), target in zip(regions, targets, strict=True):
        labels.append(torch.where(matched >= 0, target.labels[matched.clamp(min=0)] + 1, 0))
        truth = target.boxes[matched.clamp(min=0)]
        wanted.extend(BoxCoder((10.0, 10.0, 5.0, 5.0)).encode([truth], [box]))
    padded = torch.cat([torch.zeros(count, 1, 4), offsets], 1).flatten(1)
    theirs = fastrcnn_loss(logits, padded, labels, wanted)
    torch.testing.assert_close([term.mean for term in said], [*theirs])


def test_true_boxes_are_regions_too_and_the_sample_is_bounded():
    generator = torch.Generator().manual_seed(1)
    target = Target(boxes(5, generator), torch.arange(5))
    regions = match_regions(boxes(300, generator), target)
    assert torch.equal(regions.boxes[-5:], target.boxes)
    assert regions.matched[-5:].tolist() == [0, 1, 2, 3, 4]
    chosen = sample_regions(regions, 16, seed=0)
    assert len(chosen.boxes) == 16
    assert 1 <= len(chosen.foreground.boxes) <= 4


@pytest.mark.parametrize("proposals", [0, 6])
def test_an_image_without_objects_teaches_background(proposals):
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    regions = match_regions(boxes(proposals, torch.Generator().manual_seed(2)), empty)
    assert regions.matched.tolist() == [BACKGROUND] * proposals
    logits = torch.zeros(proposals, 3, requires_grad=True)
    if proposals:
        terms = region_loss(logits, torch.zeros(proposals, 2, 4), [regions], [empty])
        loss = [term.mean for term in terms]
        assert torch.isfinite(torch.stack(loss)).all()
        assert loss[1] == 0


def test_no_regions_at_all_give_no_loss():
    nothing = Regions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    logits = torch.zeros(0, 3, requires_grad=True)
    classes, box = region_loss(logits, torch.zeros(0, 2, 4), [nothing], [empty])
    assert (float(classes.mean.detach()), float(box.mean)) == (0.0, 0.0)


@pytest.mark.parametrize("pairs", [1, 700, 2000])
def test_parts_are_matched_as_the_whole_is(pairs, monkeypatch):
    """A few boxes' overlaps at a time: which box an anchor takes does not depend on how many."""
    generator = torch.Generator().manual_seed(3)
    truth, proposals = boxes(9, generator), boxes(40, generator)
    target = Target(truth, torch.arange(9))
    whole, regions = match_anchors(anchors(), truth), match_regions(proposals, target)
    assert len(whole.unique()) > 8
    monkeypatch.setattr(iou, "PAIRS", pairs)
    assert torch.equal(match_anchors(anchors(), truth), whole)
    assert torch.equal(match_regions(proposals, target).matched, regions.matched)


def test_a_quarter_of_a_sample_has_objects_the_first_one_too():
    matched = torch.tensor([0] * 10 + [BACKGROUND] * 20 + [1] * 2)
    found = Regions(torch.arange(128.0).reshape(32, 4), matched)
    chosen = sample_regions(found, 16, seed=0)
    assert (chosen.matched >= 0).sum() == 4
    assert (chosen.matched == BACKGROUND).sum() == 12
    assert len(chosen.boxes.unique(dim=0)) == 16  # none twice
    rows = (chosen.boxes[:, 0] / 4).long()
    assert torch.equal(found.matched[rows], chosen.matched)
    few = sample_regions(
        Regions(found.boxes[:14], matched[:14]), 16, seed=0
    )  # 10 objects, 4 without
    assert sorted(few.matched.tolist()) == [BACKGROUND] * 4 + [0] * 4


def test_an_overlap_of_a_half_is_enough_for_a_region():
    target = Target(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0]))
    proposals = torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.99]])
    assert match_regions(proposals, target).matched.tolist() == [0, BACKGROUND, 0]
