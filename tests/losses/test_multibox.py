import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.ops import box_convert, box_iou

from vovnet.boxes import iou
from vovnet.losses import Target, means
from vovnet.losses.matching import match_priors
from vovnet.losses.multibox import MatchRule, MultiBoxLoss, RefineLoss, hard_negatives

NOTHING = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def grid_priors() -> torch.Tensor:
    """A×4 (centre x, centre y, width, height): 4×4 cells of an input of 64 pixels, 3 shapes."""
    rows = []
    for y in (8.0, 24.0, 40.0, 56.0):
        for x in (8.0, 24.0, 40.0, 56.0):
            rows += [[x, y, 16.0, 16.0], [x, y, 30.0, 15.0], [x, y, 15.0, 30.0]]
    return torch.tensor(rows)


def corners(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def random_truths(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(count, 4, generator=generator)
    return corners(random * torch.tensor([64, 64, 30, 30]) + torch.tensor([0, 0, 6, 6]))


def bipartite(overlap: list[list[float]]) -> dict[int, int]:
    """Prior to truth: the best overlap of all pairs that are still free, again and again."""
    pairs = [(v, g, a) for g, row in enumerate(overlap) for a, v in enumerate(row) if v > 0]
    owners: dict[int, int] = {}
    for _, truth, prior in sorted(pairs, key=lambda pair: -pair[0]):
        if prior not in owners and truth not in owners.values():
            owners[prior] = truth
    return owners


def matched(priors: torch.Tensor, truths: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """A single image's matches."""
    [matches] = match_priors(priors, [truths], threshold)
    return matches


def plain_match(priors: torch.Tensor, truths: torch.Tensor, threshold: float) -> list[int]:
    overlap = box_iou(truths, priors).tolist()
    owners = bipartite(overlap)
    matches = []
    for prior in range(len(priors)):
        column = [row[prior] for row in overlap]
        best = max(column)
        own = column.index(best) if best > threshold else -1
        matches.append(owners.get(prior, own))
    return matches


@given(st.integers(1, 20), st.integers(0, 10**6), st.sampled_from([0.35, 0.5]))
@settings(deadline=None, max_examples=50)
def test_matching_equals_plain_loops(count, seed, threshold):
    priors, truths = corners(grid_priors()), random_truths(count, seed)
    matches = matched(priors, truths, threshold)
    assert matches.dtype == torch.int64
    assert matches.tolist() == plain_match(priors, truths, threshold)


@given(st.integers(1, 30), st.integers(0, 10**6), st.integers(1, 500))
@settings(deadline=None, max_examples=40)
def test_parts_match_as_the_whole_does(count, seed, pairs):
    """Boxes on a coarse grid: many equal overlaps, of which the first box and prior win."""
    priors, truths = corners(grid_priors()), (random_truths(count, seed) / 8).round() * 8
    whole = matched(priors, truths)
    assert whole.tolist() == plain_match(priors, truths, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iou, "PAIRS", pairs)
        assert torch.equal(matched(priors, truths), whole)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(1, 500),
)
@settings(deadline=None, max_examples=60)
def test_a_batch_matches_as_its_images_do(counts, seed, own, pairs):
    """With priors of their own, as RefineDet's second step has, or the same; in parts of any
    size."""
    truths = [(random_truths(g, seed + i) / 8).round() * 8 for i, g in enumerate(counts)]
    priors = corners(grid_priors())
    if own:
        generator = torch.Generator().manual_seed(seed)
        priors = priors + torch.randn(len(counts), *priors.shape, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iou, "PAIRS", pairs)
        batch = match_priors(priors, truths)
    for i, boxes in enumerate(truths):
        alone = matched(priors[i] if own else priors, boxes)
        assert torch.equal(batch[i], torch.where(alone < 0, -1, alone + sum(counts[:i])))


@given(st.integers(1, 48), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_every_truth_has_a_prior_when_there_are_enough(count, seed):
    """Every prior overlaps every truth, and all truths may want the same one."""
    generator = torch.Generator().manual_seed(seed)
    truths = torch.tensor([[20.0, 20, 44, 44]]).repeat(count, 1)
    truths += torch.randint(0, 2, truths.shape, generator=generator) * 4
    priors = torch.tensor([[16.0, 16, 48, 48]]).repeat(48, 1)
    priors += torch.rand(priors.shape, generator=generator) * 8
    assert set(range(count)) <= set(matched(priors, truths, 0.99).tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_priors_that_are_not_finite_match_nothing(bad):
    """As refined anchors may be, when a network has diverged."""
    priors, truths = corners(grid_priors()), random_truths(9, 1)
    wild = torch.cat([priors[:5], torch.full((7, 4), bad), priors[5:]])
    matches = matched(wild, truths)
    assert matches[5:12].eq(-1).all()
    assert torch.equal(torch.cat([matches[:5], matches[12:]]), matched(priors, truths))


@pytest.mark.parametrize("seed", range(5))
def test_matching_by_overlap_equals_torchvision(seed):
    """Apart from the priors forced on a truth: torchvision lets later truths take them over."""
    priors, truths = corners(grid_priors()), random_truths(6, seed)
    overlap = box_iou(truths, priors)
    theirs = SSDMatcher(0.5)(overlap)
    forced = {*overlap.argmax(1).tolist(), *bipartite(overlap.tolist())}
    rest = [i for i in range(len(priors)) if i not in forced]
    assert matched(priors, truths)[rest].tolist() == theirs[rest].tolist()


def test_each_truth_keeps_a_prior_of_its_own():
    """Two truths want one prior: the worse one gets the next best; torchvision drops one."""
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 20, 10, 30], [30, 30, 40, 40]])
    truths = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 24]])
    # Overlaps: truth 0 with prior 0 1.0; truth 1 with prior 0 100/240, with prior 1 40/300.
    assert matched(priors, truths).tolist() == [0, 1, -1]
    assert 0 not in SSDMatcher(0.5)(box_iou(truths, priors)).tolist()


def test_a_truth_off_every_prior_matches_none():
    priors = corners(grid_priors())
    far = torch.tensor([[500.0, 500.0, 520.0, 520.0]])
    assert matched(priors, far).eq(-1).all()
    flat = torch.tensor([[20.0, 20.0, 20.0, 40.0]])  # no area: its logarithm would be infinite
    assert matched(priors, flat).eq(-1).all()
    both = torch.cat([far, priors[7:8]])
    assert matched(priors, both)[7] == 1
    assert 0 not in matched(priors, both)
    assert matched(priors, torch.zeros(0, 4)).tolist() == [-1] * len(priors)


def test_more_truths_than_priors():
    priors = corners(grid_priors()[:2])
    truths = priors[:1].repeat(5, 1) + torch.arange(5.0)[:, None] / 10
    matches = matched(priors, truths).tolist()
    # Prior 0 is truth 0 itself; prior 1, the wider one, is best met by one of the others.
    assert matches[0] == 0
    assert matches[1] in {1, 2, 3, 4}


def test_hard_negatives_are_the_largest_three_to_one():
    loss = torch.tensor([[9.0, 1, 8, 2, 7, 3, 6, 4, 5, 0]]).repeat(3, 1)
    positive = torch.zeros(3, 10, dtype=torch.bool)
    positive[0, 0] = True  # the largest loss, but a positive
    positive[1, [0, 1, 2, 3]] = True  # 12 wanted, 6 left
    chosen = hard_negatives(loss, positive)
    assert chosen[0].nonzero().flatten().tolist() == [2, 4, 6]
    assert chosen[1].nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 9]
    assert chosen[2].nonzero().flatten().tolist() == [0, 2, 4]  # nothing there: the three worst
    assert hard_negatives(loss, positive, 2)[0].nonzero().flatten().tolist() == [2, 4]


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_hard_negatives_equal_a_sort(seed, ratio):
    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(3, 50, generator=generator)
    positive = torch.rand(3, 50, generator=generator) < torch.tensor([[0.0], [0.1], [0.5]])
    chosen = hard_negatives(loss, positive, ratio)
    for row, own, mask in zip(loss, positive, chosen, strict=True):
        order = [i for i in row.argsort(descending=True).tolist() if not own[i]]
        wanted = order[: ratio * max(1, int(own.sum()))]
        assert mask.nonzero().flatten().tolist() == sorted(wanted)


@pytest.mark.parametrize("shape", [(0, 10), (2, 0)])
def test_hard_negatives_of_nothing(shape):
    positive = torch.zeros(shape, dtype=torch.bool)
    assert hard_negatives(torch.zeros(shape), positive).shape == shape


def plain_loss(
    logits: torch.Tensor,
    offsets: torch.Tensor,
    targets: list[Target],
    all_priors: torch.Tensor,
    eligible: torch.Tensor | None = None,
) -> tuple[float, float]:
    """The criterion in python floats, image by image and prior by prior."""
    class_sum, box_sum, positives = 0.0, 0.0, 0
    for image, target in enumerate(targets):
        priors = all_priors if all_priors.ndim == 2 else all_priors[image]
        matches = [-1] * len(priors)
        if len(target.boxes):
            matches = plain_match(corners(priors), target.boxes, 0.5)
        negatives, mine = [], 0
        for prior, match in enumerate(matches):
            row = logits[image, prior].tolist()
            log_sum = math.log(sum(math.exp(v) for v in row))
            if match < 0:
                if eligible is None or eligible[image, prior]:
                    negatives.append(log_sum - row[0])
                continue
            mine += 1
            class_sum += log_sum - row[1 + int(target.labels[match])]
            px, py, pw, ph = priors[prior].tolist()
            x1, y1, x2, y2 = target.boxes[match].tolist()
            wanted = (
                ((x1 + x2) / 2 - px) / pw / 0.1,
                ((y1 + y2) / 2 - py) / ph / 0.1,
                math.log((x2 - x1) / pw) / 0.2,
                math.log((y2 - y1) / ph) / 0.2,
            )
            for said, true in zip(offsets[image, prior].tolist(), wanted, strict=True):
                error = abs(said - true)
                box_sum += error**2 / 2 if error < 1 else error - 0.5
        class_sum += sum(sorted(negatives, reverse=True)[: 3 * max(mine, 1)])
        positives += mine
    return class_sum / max(positives, 1), box_sum / max(positives, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(counts: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor, list[Target]]:
    generator = torch.Generator().manual_seed(seed)
    priors = len(grid_priors())
    logits = torch.randn(len(counts), priors, 4, generator=generator) * 2
    offsets = torch.randn(len(counts), priors, 4, generator=generator)
    targets = [
        Target(random_truths(n, seed + i), torch.arange(n) % 3) if n else NOTHING
        for i, n in enumerate(counts)
    ]
    return logits.requires_grad_(), offsets.requires_grad_(), targets


@pytest.mark.parametrize("counts", [(3,), (1, 0, 7), (0, 0), (60,)])
def test_loss_equals_plain_loops(counts):
    logits, offsets, targets = batch(counts, 11)
    terms = means(MultiBoxLoss(grid_priors())((logits, offsets), targets, (64, 64)))
    classes, box = plain_loss(logits.detach(), offsets.detach(), targets, grid_priors())
    assert terms.keys() == {"class", "box"}
    assert float(terms["class"].detach()) == pytest.approx(classes, rel=1e-5)
    assert float(terms["box"].detach()) == pytest.approx(box, rel=1e-4)


@pytest.mark.parametrize("counts", [(3,), (1, 0, 7), (0, 0)])
def test_the_two_steps_of_refinedet_equal_plain_loops(counts):
    """The second sees the anchors that the first has moved, and none as a negative of which the
    first is 99 % sure; torchvision moves them here."""
    anchors = grid_priors()
    logits, offsets, targets = batch(counts, 21)
    logits, offsets = logits.detach(), offsets.detach()
    arm_logits = torch.randn(len(counts), len(anchors), 2, generator=seeded(3)) * 4
    arm_offsets = torch.randn(len(counts), len(anchors), 4, generator=seeded(4)) / 2
    outputs = (arm_logits, arm_offsets, logits, offsets)
    terms = means(RefineLoss(anchors)(outputs, targets, (64, 64)))

    plain = [Target(t.boxes, torch.zeros_like(t.labels)) for t in targets]
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    moved = torch.stack([coder.decode_single(each, corners(anchors)) for each in arm_offsets])
    refined = box_convert(moved, "xyxy", "cxcywh")
    objects = arm_logits.softmax(2)[..., 1]
    assert 0.1 < (objects < 0.01).float().mean() < 0.9
    first = plain_loss(arm_logits, arm_offsets, plain, anchors)
    second = plain_loss(logits, offsets, targets, refined, objects >= 0.01)
    said = [float(terms[name]) for name in ("arm_class", "arm_box", "class", "box")]
    assert said == pytest.approx([*first, *second], rel=1e-4)


@pytest.mark.parametrize("counts", [(0,), (0, 0), (0, 4)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_images_without_objects_teach_and_stay_finite(counts, scale):
    logits, offsets, targets = batch(counts, 5)
    loss = MultiBoxLoss(grid_priors())
    terms = means(loss((logits * scale, offsets * scale), targets, (64, 64)))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(offsets.grad).all()
    # In the image without objects exactly three priors are pushed to the background.
    assert logits.grad[0].ne(0).any(1).sum() <= 3
    if scale == 1:
        assert logits.grad[0].ne(0).any(1).sum() == 3
    assert offsets.grad[0].eq(0).all()
    if not any(counts):
        assert terms["box"] == 0


def test_a_truth_off_every_prior_leaves_the_loss_finite():
    logits, offsets, _ = batch((1,), 5)
    labels = torch.tensor([1])
    for box in ([500.0, 500.0, 520.0, 520.0], [20.0, 20.0, 20.0, 40.0]):
        target = Target(torch.tensor([box]), labels)
        loss = MultiBoxLoss(grid_priors())
        terms = means(loss((logits, offsets), [target], (64, 64)))
        empty = means(loss((logits, offsets), [NOTHING], (64, 64)))
        assert torch.equal(terms["class"], empty["class"])
        assert terms["box"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("counts", [(3, 0), (0, 0)])
@pytest.mark.parametrize("refine", [False, True])
def test_half_precision_outputs(dtype, counts, refine):
    logits, offsets, targets = batch(counts, 2)
    outputs = (logits, offsets)
    if refine:
        outputs = (logits[..., :2], offsets / 4, *outputs)
    loss = RefineLoss(grid_priors()) if refine else MultiBoxLoss(grid_priors())
    # Rounded before both: refined anchors a hair apart may match otherwise.
    half = [x.to(dtype) for x in outputs]
    exact = means(loss([x.float() for x in half], targets, (64, 64)))
    terms = means(loss(half, targets, (64, 64)))
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, exact[name])
    sum(terms.values()).backward()
    assert logits.grad.isfinite().all()
    assert offsets.grad.isfinite().all()


def test_a_prior_that_overlaps_by_more_than_a_half_is_a_positive():
    """Three priors of 20×20: the object's own, one 3 pixels beside it (IoU 17/23) and one 10 pixels
    beside it (10/30). The first two are positives, the third the only negative there is."""
    rule = MatchRule()
    assert (rule.threshold, rule.variances, rule.negative_ratio) == (0.5, (0.1, 0.2), 3)
    priors = torch.tensor([[x, 40.0, 20.0, 20.0] for x in (40.0, 43.0, 50.0)])
    target = Target(torch.tensor([[30.0, 30.0, 50.0, 50.0]]), torch.tensor([0]))
    logits, offsets = torch.zeros(1, 3, 2), torch.zeros(1, 3, 4)
    terms = means(MultiBoxLoss(priors)((logits, offsets), [target], (80, 80)))
    shift = 3 / 20 / 0.1  # of the second's centre; smooth L1 takes a half off
    assert float(terms["box"]) == pytest.approx((shift - 0.5) / 2)
    assert float(terms["class"]) == pytest.approx(3 * math.log(2) / 2)
