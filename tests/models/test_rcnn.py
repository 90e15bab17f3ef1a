import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import boxes as box_ops
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from vovnet.detect.masks import paste_masks
from vovnet.losses import InstanceMasks, Target, means
from vovnet.models import create_detector
from vovnet.models.centermask import CenterMaskOutput, adaptive_levels
from vovnet.models.detector import WholePass
from vovnet.models.fpn import canonical_levels, pool_regions
from vovnet.models.rcnn import Proposing, RCNNOutput, proposing_in_use, rcnn_anchors

# Parameters in millions as the CenterMask paper prints them (table 4; cut, not rounded).
PRINTED = {"vovnet39": 49.0, "vovnet57": 63.0, "vovnet39_v2": 52.6, "vovnet57_v2": 68.9}
PRINTED["vovnet99"] = 96.9
COCO = tuple(f"class{i}" for i in range(80))


@pytest.mark.parametrize("trunk", PRINTED)
def test_centermask_has_the_printed_parameters(trunk):
    with torch.device("meta"):
        detector = create_detector(f"centermask-{trunk}", COCO)
    count = sum(p.numel() for p in detector.parameters()) / 1e6
    assert int(count * 10) / 10 == PRINTED[trunk]


def random_boxes(count: int, seed: int, side: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side * 0.8
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 7)
    return torch.cat([corner, corner + 1 + sides], 1)


def test_levels_are_torchvisions():
    boxes = random_boxes(400, 0, 800)
    close = torch.tensor([224.0, 448.0])[:, None] * (1 - torch.tensor([0, 0.5e-6, 1.5e-6, 3e-6]))
    boxes = torch.cat([boxes, nn.functional.pad(close.reshape(-1, 1).repeat(1, 2), (2, 0))])
    mapper = LevelMapper(2, 5, canonical_scale=224, canonical_level=4, eps=1e-6)
    assert torch.equal(canonical_levels(boxes, 4), mapper([boxes]))
    assert set(canonical_levels(boxes, 4).tolist()) == {0, 1, 2, 3}


def test_adaptive_levels_follow_the_share_of_the_image():
    sides = torch.tensor([10.0, 99, 101, 141, 142, 200])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], 1)
    # Equation 1 with its last level as k_max: every halving of the area is a level.
    assert adaptive_levels(boxes, (200, 200)).tolist() == [0, 0, 1, 1, 2, 2]


def test_regions_are_pooled_from_their_own_level_and_image():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 64 // s, 64 // s, generator=generator) for s in (4, 8)]
    boxes = [random_boxes(5, 1, 60), random_boxes(2, 2, 60)]
    levels = [torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1, 0])]
    pooled = pool_regions(maps, (4, 8), boxes, levels, 7)
    rows = [(i, b, k) for i in (0, 1) for b, k in zip(boxes[i], levels[i].tolist(), strict=True)]
    for row, (image, box, level) in zip(pooled, rows, strict=True):
        one = maps[level][image : image + 1]
        wanted = roi_align(one, [box[None]], 7, 1 / (4, 8)[level], 2, aligned=True)[0]
        torch.testing.assert_close(row, wanted)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("family", ["fasterrcnn_lite", "centermask_lite"])
def test_places_of_regions_are_not_rounded_with_the_features(family, autocast):
    """At 800 pixels bf16 would move a corner by up to two. 0.4 % is its rounding of a feature."""
    network = create_detector(f"{family}-vovnet19_slim_dw", ("a", "b")).network
    kind, pooled = (RCNNOutput, 4) if family == "fasterrcnn_lite" else (CenterMaskOutput, 3)
    strides = network.pyramid.strides[:pooled]
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 4, 800 // s, 800 // s, generator=generator) for s in strides]
    maps = [one.bfloat16().float() for one in maps]
    boxes, rest = [random_boxes(200, 1, 800)], [torch.zeros(1)] * (len(kind._fields) - pooled)
    last = (800, 800) if family == "centermask_lite" else 7
    exact = network._pool(kind(*maps, *rest), boxes, last)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = network._pool(kind(*(one.bfloat16() for one in maps), *rest), boxes, last)
    assert found.dtype == torch.bfloat16  # the heads go on in it
    assert (found - exact).norm() < 0.004 * exact.norm()


def small(masks: bool = True) -> nn.Module:
    torch.manual_seed(0)
    kind = "maskrcnn_lite" if masks else "fasterrcnn_lite"
    return create_detector(f"{kind}-vovnet19_slim_dw", ("a", "b")).network


def test_proposals_are_torchvisions():
    """The same logits and offsets through torchvision's filter, without a floor of objectness."""
    network = small(masks=False).eval()
    anchors = rcnn_anchors((128, 128), network.pyramid.strides)
    counts = [len(level) for level in anchors]
    generator = torch.Generator().manual_seed(3)
    objectness = torch.randn(2, sum(counts), generator=generator)
    offsets = torch.randn(2, sum(counts), 4, generator=generator) * 0.3
    outputs = RCNNOutput(*[torch.zeros(1)] * 5, objectness, offsets)
    said = network._propose(outputs, (128, 128), Proposing(1000, 1000, 0.7))

    most = {"training": 2000, "testing": 1000}
    theirs = RegionProposalNetwork(None, RPNHead(1, 1), 0.7, 0.3, 256, 0.5, most, most, 0.7).eval()
    decoded = theirs.box_coder.decode(offsets.reshape(-1, 4), [torch.cat(anchors)] * 2)
    wanted, _ = theirs.filter_proposals(
        decoded.reshape(2, -1, 4), objectness, [(128, 128)] * 2, counts
    )
    for mine, other in zip(said, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=0)
        assert torch.equal(mine, box_ops.clip_boxes_to_image(mine, (128, 128)))


def test_small_inputs_have_fewer_regions():
    """As published above 400 pixels; below, in proportion to the side, and overlapping less."""
    assert proposing_in_use((800, 416)) == Proposing(1000, 1000, 0.7, 0.01)
    assert proposing_in_use((256, 256)) == Proposing(1000, 205, 0.5, 0.3)
    network = small(masks=False).eval()
    outputs = network(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    shape = outputs.objectness.shape
    sure = outputs._replace(
        objectness=torch.randn(shape, generator=torch.Generator().manual_seed(1))
    )
    rule = proposing_in_use((128, 128))._replace(min_objectness=0.0)
    [boxes] = network._propose(sure, (128, 128), rule)
    assert len(boxes) == rule.most == 102
    [fewer] = network._propose(sure, (128, 128), rule._replace(candidates=20))
    assert len(fewer) < 100


def test_training_sees_every_region_whatever_the_input():
    """The number of regions in use is none of the losses'."""
    network = small(masks=False).train()
    asked = []
    whole = network._propose

    def propose(outputs: RCNNOutput, size: tuple[int, int], rule: Proposing) -> list[torch.Tensor]:
        asked.append(rule)
        return whole(outputs, size, rule)

    network._propose = propose
    outputs = network(torch.randn(1, 3, 128, 128))
    network.terms(outputs, [target()], (128, 128))
    network.eval().terms(outputs, [target()], (128, 128))
    assert asked == [Proposing(2000, 2000, 0.7), Proposing(1000, 1000, 0.7)]


def target() -> Target:
    boxes = torch.tensor([[8.0, 8, 40, 48], [60, 70, 100, 90]])
    shapes = torch.tensor([[40, 32], [20, 40]])
    masks = InstanceMasks(boxes, shapes, torch.ones(int(shapes.prod(1).sum()), dtype=torch.uint8))
    return Target(boxes, torch.tensor([0, 1]), masks)


def test_a_step_on_one_image_lowers_every_loss():
    network = small().train()
    network.regions = 16
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    totals = []
    for _ in range(9):
        losses = means(network.terms(network(images), [target()], (128, 128)))
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert set(losses) == {"proposal_class", "proposal_box", "class", "box", "mask"}
    assert totals[-1] < 0.7 * totals[0]


def test_masks_are_pasted_where_their_boxes_are():
    boxes = np.array([[4.0, 6.0, 20.0, 30.0], [-5.0, -5.0, 5.0, 5.0], [3.0, 3.0, 3.0, 9.0]])
    whole = torch.from_numpy(paste_masks(np.ones((3, 28, 28)), boxes, (40, 32)))
    assert whole.shape == (3, 40, 32)
    wanted = torch.zeros(40, 32, dtype=torch.bool)
    wanted[6:30, 4:20] = True
    assert torch.equal(whole[0], wanted)
    assert torch.equal(whole[1].nonzero().amax(0), torch.tensor([4, 4]))
    assert not whole[2].any()  # a box without area


def test_a_mask_comes_back_from_its_box():
    truth = torch.zeros(60, 60, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    truth |= (x - 30).square() / 400 + (y - 25).square() / 225 < 1
    box = torch.tensor([[10.0, 10.0, 51.0, 41.0]])
    seen = roi_align(truth[None, None].float(), [box], 28, aligned=True)[0]
    pasted = torch.from_numpy(paste_masks(seen.numpy(), box.numpy(), (60, 60))[0])
    assert (pasted & truth).sum() / (pasted | truth).sum() > 0.95


@pytest.mark.parametrize(("side", "regions"), [(64, 51), (832, 1000)])
def test_the_second_stage_is_counted_at_its_dearest(side, regions):
    with torch.device("meta"):
        network = create_detector("maskrcnn-vovnet19_slim", ("a", "b")).network.eval()

        def macs(module: nn.Module) -> int:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                module(torch.empty(1, 3, side, side))
            return counter.get_total_flops() // 2

        box = 4 * 256 * 256 * 9 * 7**2 + 256 * 7**2 * 1024 + 1024 * (3 + 4 * 2)
        mask = (4 * 256 * 256 * 9 + 4 * 256 * 256) * 14**2 + 256 * 2 * 28**2
        second = macs(WholePass(network)) - macs(network)
    assert second == regions * box + 100 * mask


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("fasterrcnn_lite", [(102, 3), (102, 2, 4)]),
        ("maskrcnn_lite", [(102, 3), (102, 2, 4), (200, 2, 28, 28)]),
        ("centermask_lite", [(100, 2, 28, 28), (100, 2)]),
    ],
)
def test_a_whole_pass_tells_both_stages(name, shapes):
    """Of two images of 64 pixels: at most 51 regions and 100 masks each, CenterMask's 50."""
    with torch.device("meta"):
        network = create_detector(f"{name}-vovnet19_slim_dw", ("a", "b")).network.eval()
        first, second = WholePass(network)(torch.empty(2, 3, 64, 64))
    assert [tuple(output.shape) for output in second] == shapes
    assert [x.shape for x in first] == [
        x.shape for x in network(torch.empty(2, 3, 64, 64, device="meta"))
    ]
