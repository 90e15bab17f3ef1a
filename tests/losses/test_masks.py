import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from vovnet.errors import DataError
from vovnet.losses import InstanceMasks, Target
from vovnet.losses.masks import mask_loss, mask_overlaps, mask_targets, masked_objects
from vovnet.losses.regions import Regions

examples = settings(deadline=None, max_examples=40)
SIDE = 64


def packed(bitmaps: list[torch.Tensor], frames: torch.Tensor) -> InstanceMasks:
    shapes = torch.tensor([b.shape for b in bitmaps], dtype=torch.int64).reshape(-1, 2)
    pixels = torch.cat([b.flatten() for b in bitmaps]).to(torch.uint8)
    return InstanceMasks(frames, shapes, pixels)


@st.composite
def scenes(draw) -> tuple[torch.Tensor, InstanceMasks]:
    """Whole-image masks G×64×64 and the same cut out with their integer boxes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    whole, bitmaps, frames = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        # Off the border: RoIAlign takes what lies just outside an image for its outermost pixels.
        x, y = torch.randint(1, 39, (2,), generator=generator).tolist()
        width, height = torch.randint(2, 24, (2,), generator=generator).tolist()
        bitmap = torch.rand(height, width, generator=generator) < 0.6
        canvas = torch.zeros(SIDE, SIDE)
        canvas[y : y + height, x : x + width] = bitmap.float()
        whole.append(canvas)
        bitmaps.append(bitmap)
        frames.append([x, y, x + width, y + height])
    return torch.stack(whole), packed(bitmaps, torch.tensor(frames, dtype=torch.float32))


def regions_around(masks: InstanceMasks, seed: int) -> Regions:
    generator = torch.Generator().manual_seed(seed)
    matched = torch.arange(len(masks.frames)).repeat(3)
    jitter = torch.randn(len(matched), 4, generator=generator) * 3
    boxes = masks.frames[matched] + jitter
    return Regions(torch.cat([boxes[:, :2], boxes[:, :2] + 1 + jitter[:, 2:].abs()], 1), matched)


@examples
@given(scenes(), st.integers(0, 2**31))
def test_targets_are_cut_from_bitmaps_as_from_whole_images(scene, seed):
    whole, masks = scene
    regions = regions_around(masks, seed)
    rois = torch.cat([regions.matched[:, None].float(), regions.boxes], 1)
    wanted = roi_align(whole[:, None], rois, 28, aligned=True)[:, 0]
    torch.testing.assert_close(mask_targets(masks, regions, 28), wanted, atol=1e-4, rtol=1e-4)


@examples
@given(scenes(), st.integers(0, 2**31), st.floats(0.3, 4.0))
def test_targets_do_not_change_with_the_images_scale(scene, seed, scale):
    _, masks = scene
    regions = regions_around(masks, seed)
    larger = masks._replace(frames=masks.frames * scale)
    scaled = regions._replace(boxes=regions.boxes * scale)
    # Compared away from steps of the sampling grid, which may fall to either side of a rounding.
    difference = (mask_targets(larger, scaled, 28) - mask_targets(masks, regions, 28)).abs()
    assert difference.median() < 1e-3


def test_a_region_that_is_its_objects_frame_sees_the_bitmap():
    bitmap = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = packed([bitmap], torch.tensor([[3.0, 5.0, 31.0, 33.0]]))
    seen = mask_targets(masks, Regions(masks.frames, torch.tensor([0])), 28)
    torch.testing.assert_close(seen[0], bitmap.float())


def test_objects_without_a_mask_do_not_train_one():
    masks = packed([torch.ones(2, 2), torch.zeros(0, 0)], torch.tensor([[0.0, 0, 2, 2], [0] * 4]))
    target = Target(torch.rand(2, 4), torch.tensor([0, 0]), masks)
    regions = Regions(torch.rand(4, 4), torch.tensor([-1, 0, 1, 0]))
    assert masked_objects(regions, target).matched.tolist() == [0, 0]
    with pytest.raises(DataError, match="segmentations"):
        masked_objects(regions, target._replace(masks=None))


def test_no_masks_give_no_loss_but_a_gradient():
    logits = torch.zeros(0, 28, 28, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, 28, 28), torch.tensor(0.0)).mean
    loss.backward()
    assert loss == 0
    assert logits.grad is not None


def test_the_overlap_counts_what_lies_outside_the_region():
    frame = torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    masks = packed([torch.ones(10, 20)], frame)
    half = Regions(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0]))
    whole = Regions(frame, torch.tensor([0]))
    target = Target(frame, torch.tensor([0]), masks)
    full = torch.ones(1, 28, 28)
    assert mask_overlaps(full, mask_targets(masks, whole, 28), [whole], [target]) == 1
    said = mask_overlaps(full, mask_targets(masks, half, 28), [half], [target])
    torch.testing.assert_close(said, torch.tensor([0.5]), atol=0.01, rtol=0)
    nothing = mask_overlaps(full * 0.4, mask_targets(masks, whole, 28), [whole], [target])
    assert nothing == 0
