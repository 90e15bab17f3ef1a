from pathlib import Path

import numpy as np
import pytest
from hotcoco import mask as coco_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from vovnet.data.compose import compose
from vovnet.data.draws import Draw
from vovnet.data.masks import record_masks
from vovnet.data.record import Record
from vovnet.data.sample import Mask, Sample, joined
from vovnet.data.zoom import ZoomAugment
from vovnet.errors import DataError

HEIGHT, WIDTH = 40, 60


def record(segmentations: tuple, size: tuple[int, int] | None = (HEIGHT, WIDTH)) -> Record:
    count = len(segmentations)
    nobody = np.zeros(count, bool)
    boxes = np.tile(np.array([[0, 0, WIDTH, HEIGHT]], np.float32), (count, 1))
    labels = np.zeros(count, np.int64)
    return Record(Path("a.png"), 1, boxes, labels, nobody, nobody, size, None, segmentations)


def rle(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_polygons_and_both_kinds_of_rle_are_read():
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[5:12, 20:33] = True
    counts = [20 * HEIGHT + 5]
    for _ in range(12):
        counts += [7, HEIGHT - 7]
    counts += [7, HEIGHT * WIDTH - sum(counts) - 7]
    polygon = [[20, 5, 33, 5, 33, 12, 20, 12]]
    plain = {"counts": counts, "size": [HEIGHT, WIDTH]}
    made = record_masks(record((polygon, plain, rle(whole))), np.ones(3, bool))
    for mask in made:
        assert mask.frame.tolist() == [20, 5, 33, 12]
        assert mask.bitmap.shape == (7, 13)
        assert mask.bitmap.all()


def test_what_has_no_mask_has_an_empty_one():
    blank = rle(np.zeros((HEIGHT, WIDTH), bool))
    made = record_masks(record(([], blank)), np.array([True, True]))
    assert [mask.bitmap.size for mask in made] == [0, 0]
    bare = record(())
    assert record_masks(bare, np.ones(2, bool))[1].bitmap.size == 0
    assert record_masks(record(([], [], [])), np.array([False, True, False])) == (made[0],)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": "%%%", "size": [HEIGHT, WIDTH]}, "a.png"),
        ([["a"]], "cannot be read"),
        (rle(np.ones((3, 4), bool)), "4x3 in 60x40"),
    ],
)
def test_a_broken_segmentation_names_its_image(segmentation, message):
    with pytest.raises(DataError, match=message):
        record_masks(record((segmentation,)), np.ones(1, bool))


def test_masks_need_the_size():
    with pytest.raises(DataError, match="size"):
        record_masks(record(([[0, 0, 5, 0, 5, 5]],), None), np.ones(1, bool))


def drawn(sample: Sample) -> np.ndarray:
    """The sample's masks painted at its own size by nearest neighbours: N×H×W."""
    height, width = sample.pixels.shape[:2]
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    canvas = np.zeros((len(sample.masks), height, width), bool)
    for whole, mask in zip(canvas, sample.masks, strict=True):
        (h, w), (x1, y1, x2, y2) = mask.bitmap.shape, mask.frame
        column = np.floor((x - x1) / (x2 - x1) * w).astype(int)
        row = np.floor((y - y1) / (y2 - y1) * h).astype(int)
        inside = ((row >= 0) & (row < h))[:, None] & ((column >= 0) & (column < w))
        whole |= inside & mask.bitmap[row.clip(0, h - 1)][:, column.clip(0, w - 1)].astype(bool)
    return canvas


def painted(seed: int) -> Sample:
    """A grey picture whose one object, an L, is red; its mask and its box."""
    pixels = np.full((48, 64, 3), 114, np.uint8)
    bitmap = np.ones((24, 20), np.uint8)
    bitmap[:14, 8:] = 0
    rng = np.random.default_rng(seed)
    x, y = int(rng.integers(2, 40)), int(rng.integers(2, 20))
    pixels[y : y + 24, x : x + 20][bitmap > 0] = (255, 0, 0)
    frame = np.array([x, y, x + 20, y + 24], np.float32)
    return Sample(pixels, frame[None].copy(), np.zeros(1, np.int64), (Mask(bitmap, frame),))


AUGMENT = ZoomAugment(zoom=(0.8, 1.8), colour=0.0, vertical_flip=0.5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.booleans())
def test_masks_stay_on_their_objects_through_the_augmentation(seed, mosaic):
    rng = np.random.default_rng(seed)
    parts = [painted(seed + i) for i in range(4)]
    made = AUGMENT(parts if mosaic else parts[:1], 96, rng)
    assert len(made.masks) == len(made.boxes)
    if not len(made.masks):
        return
    red = (made.pixels[..., 0] > 185) & (made.pixels[..., 1] < 60)
    for mask in drawn(made):
        # Blurred borders aside, what the mask says is red, and turned as the picture is.
        assert (mask & red).sum() > 0.75 * mask.sum()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.booleans())
def test_mixed_pictures_keep_the_masks_of_both(seed, mosaic):
    parts = [painted(seed + i) for i in range(5)]
    draw = Draw(0, 2, 96, mosaic, mixup=True)
    made = compose(draw, seed, len(parts), parts.__getitem__, AUGMENT).render()
    alone = compose(draw._replace(mixup=False), seed, 5, parts.__getitem__, AUGMENT).render()
    assert len(made.masks) == len(made.boxes) == len(made.labels)
    assert np.array_equal(made.boxes[: len(alone.boxes)], alone.boxes)
    for mask, frame in zip(drawn(made), made.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = frame
        # Each mask lies in its own box, and a picture's weight of red shows there.
        assert left - 1 <= columns.min() <= columns.max() <= right + 1
        assert top - 1 <= rows.min() <= rows.max() <= bottom + 1
        assert (made.pixels[..., 0][mask] > 114).mean() > 0.75


def test_joining_keeps_masks_only_if_all_have_some():
    one, other = painted(0), Sample(painted(1).pixels, painted(1).boxes, painted(1).labels)
    assert len(joined(one.pixels, [one, one]).masks) == 2
    assert joined(one.pixels, [one, other]).masks is None
