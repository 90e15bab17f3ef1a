import colorsys
import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.data.sample import Sample
from vovnet.data.ssd import Distortion, SSDAugment, _crop
from vovnet.data.zoom import ZoomAugment

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 255]], np.uint8)
GREY = 114
seeds = st.integers(0, 2**32)
examples = settings(deadline=None, max_examples=60)


def painted(
    box: tuple[int, int, int, int], colour: int, size: tuple[int, int] = (90, 120)
) -> Sample:
    """A grey image of `size` (height, width) with one rectangle of a colour, labelled by it."""
    pixels = np.full((*size, 3), GREY, np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = COLOURS[colour]
    return Sample(pixels, np.array([box], np.float32), np.array([colour], np.int64))


@st.composite
def samples(draw, colour: int = 0) -> Sample:
    """Like `painted`, rectangle and image of any shape; sides of the rectangle at least 12."""
    height, width = draw(st.integers(20, 150)), draw(st.integers(20, 150))
    x1, y1 = draw(st.integers(0, width - 12)), draw(st.integers(0, height - 12))
    x2, y2 = draw(st.integers(x1 + 12, width)), draw(st.integers(y1 + 12, height))
    return painted((x1, y1, x2, y2), colour, (height, width))


@st.composite
def noise(draw) -> Sample:
    """Any small picture with up to five boxes anywhere inside, down to 1×1 and slivers."""
    height, width = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(seeds))
    count = draw(st.integers(0, 5))
    corners = rng.uniform(0, 1, (count, 2, 2)) * [width, height]
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(pixels, boxes, np.arange(count, dtype=np.int64))


def extent(pixels: np.ndarray, colour: int) -> np.ndarray | None:
    """Box around the pixels that are more of a colour than of grey, or None."""
    distance = np.abs(pixels.astype(int) - COLOURS[colour]).sum(2)
    rows, columns = np.nonzero(distance < np.abs(COLOURS[colour].astype(int) - GREY).sum() / 2)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def same(a: Sample, b: Sample) -> bool:
    pairs = ((a.pixels, b.pixels), (a.boxes, b.boxes), (a.labels, b.labels))
    return all(np.array_equal(x, y) for x, y in pairs)


def check_form(sample: Sample, size: int) -> None:
    assert sample.pixels.shape == (size, size, 3)
    assert sample.pixels.dtype == np.uint8
    assert sample.pixels.flags.c_contiguous
    assert sample.boxes.dtype == np.float32
    assert sample.labels.dtype == np.int64
    assert sample.boxes.shape == (len(sample.labels), 4)
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= size).all()
    assert (sample.boxes[:, 2:] - sample.boxes[:, :2] >= 1.99).all()


def check_places(sample: Sample, tolerance: float = 2.0) -> int:
    """Every box lies around its own colour; returns how many boxes there are."""
    assert len(set(sample.labels.tolist())) == len(sample.labels)
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        seen = extent(sample.pixels, label)
        assert seen is not None
        assert np.abs(seen - box).max() <= tolerance, (seen, box)
    return len(sample.labels)


@examples
@given(noise(), st.sampled_from([32, 64, 96]), seeds)
def test_zoomed_boxes_stay_inside(sample, size, seed):
    result = ZoomAugment()([sample], size, np.random.default_rng(seed))
    check_form(result, size)
    assert set(result.labels.tolist()) <= set(sample.labels.tolist())


@examples
@given(st.lists(noise(), min_size=4, max_size=4), seeds)
def test_boxes_of_mosaics_stay_inside(parts, seed):
    check_form(ZoomAugment()(parts, 64, np.random.default_rng(seed)), 64)


@settings(deadline=None, max_examples=30)
@given(noise(), st.sampled_from([32, 60]), seeds)
def test_ssd_boxes_stay_inside(sample, size, seed):
    result = SSDAugment(vertical_flip=0.5)([sample], size, np.random.default_rng(seed))
    check_form(result, size)
    assert set(result.labels.tolist()) <= set(sample.labels.tolist())


@examples
@given(samples(), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), seeds)
def test_the_box_follows_the_pixels_through_zoom_and_flips(sample, flip, vertical, seed):
    augment = ZoomAugment(colour=0.0, flip=flip, vertical_flip=vertical)
    check_places(augment([sample], 96, np.random.default_rng(seed)))


@examples
@given(st.tuples(*(samples(i) for i in range(4))), st.sampled_from([0.0, 1.0]), seeds)
def test_boxes_follow_their_pixels_into_a_mosaic(parts, flip, seed):
    augment = ZoomAugment(colour=0.0, flip=flip, vertical_flip=1.0 - flip)
    result = augment(parts, 160, np.random.default_rng(seed))
    check_places(result)


def four_objects() -> Sample:
    """A grey image with a rectangle of every colour, apart from each other."""
    boxes = [(8, 8, 50, 38), (66, 12, 112, 40), (12, 52, 48, 84), (70, 50, 110, 80)]
    pixels = np.full((90, 120, 3), GREY, np.uint8)
    for colour, (x1, y1, x2, y2) in zip(COLOURS, boxes, strict=True):
        pixels[y1:y2, x1:x2] = colour
    return Sample(pixels, np.array(boxes, np.float32), np.arange(4))


@examples
@given(st.booleans(), seeds)
def test_labels_stay_with_their_boxes_when_others_are_lost(mosaic, seed):
    augment = ZoomAugment(zoom=(1.0, 2.5), colour=0.0)
    rng = np.random.default_rng(seed)
    empty = Sample(np.full((9, 9, 3), GREY, np.uint8), np.zeros((0, 4), np.float32), np.arange(0))
    if mosaic:
        check_places(augment([empty, four_objects(), empty, empty], 200, rng))
    else:
        check_places(augment([four_objects()], 128, rng))


@settings(deadline=None, max_examples=30)
@given(samples(), seeds)
def test_a_flip_mirrors_the_very_same_sample(sample, seed):
    plain, across, upside = (
        ZoomAugment(flip=a, vertical_flip=b)([sample], 64, np.random.default_rng(seed))
        for a, b in ((0, 0), (1, 0), (0, 1))
    )
    assert np.array_equal(across.pixels, plain.pixels[:, ::-1])
    assert np.array_equal(upside.pixels, plain.pixels[::-1])
    mirrored = plain.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
    assert np.allclose(across.boxes, mirrored)
    mirrored = plain.boxes[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 64, 0, 64]
    assert np.allclose(upside.boxes, mirrored)


def test_enough_boxes_survive_for_the_checks_above_to_mean_something():
    found = 0
    parts = [painted((20, 20, 90, 70), colour) for colour in range(4)]
    for seed in range(40):
        augment = ZoomAugment(colour=0.0, flip=0.5, vertical_flip=0.5)
        rng = np.random.default_rng(seed)
        found += check_places(augment([parts[0]], 96, rng))
        found += check_places(augment(parts, 160, rng))
    assert found > 0.7 * 40 * 5


@pytest.mark.parametrize(("zoom", "covered"), [((0.5, 0.5), 0.25), ((1.0, 1.0), 1.0)])
def test_the_zoom_is_the_share_of_the_side_that_the_image_fills(zoom, covered):
    white = Sample(
        np.full((50, 50, 3), 255, np.uint8),
        np.array([[0, 0, 50, 50]], np.float32),
        np.array([0]),
    )
    augment = ZoomAugment(zoom=zoom, aspect=0.0, colour=0.0)
    result = augment([white], 64, np.random.default_rng(0))
    assert (result.pixels == 255).mean() == pytest.approx(covered, abs=0.02)
    [box] = result.boxes
    assert (box[2:] - box[:2]).prod() == pytest.approx(64 * 64 * covered)


def test_what_is_mostly_cropped_away_has_no_box():
    # Three times as large as the input: some seeds show the corner object, most do not.
    sample = painted((0, 0, 40, 40), 0, (120, 120))
    augment = ZoomAugment(zoom=(3.0, 3.0), aspect=0.0, colour=0.0)
    kept = 0
    for seed in range(60):
        result = augment([sample], 60, np.random.default_rng(seed))
        area = (result.boxes[:, 2:] - result.boxes[:, :2]).prod(1)
        assert (area >= 0.3 * 60 * 60 - 1).all()  # the object is as large as the input here
        seen = extent(result.pixels, 0)
        shown = 0 if seen is None else (seen[2:] - seen[:2]).prod()
        kept += len(result.boxes)
        assert len(result.boxes) == 1 or shown < 0.3 * 60 * 60 + 130
    assert 0 < kept < 60


def test_colours_change_and_only_within_their_range():
    sample = painted((10, 10, 30, 30), 0)
    pictures = [
        ZoomAugment(zoom=(1.0, 1.0), aspect=0.0, flip=0.0, colour=colour)(
            [sample], 64, np.random.default_rng(3)
        ).pixels.astype(float)
        for colour in (0.0, 0.05, 0.4)
    ]
    differences = [np.abs(picture - pictures[0]).mean() for picture in pictures]
    assert 0 == differences[0] < differences[1] < differences[2]


AUGMENTS = {
    "zoom": lambda sample, size, rng: ZoomAugment(vertical_flip=0.5)([sample], size, rng),
    "ssd": lambda sample, size, rng: SSDAugment(vertical_flip=0.5)([sample], size, rng),
    "mosaic": lambda sample, size, rng: ZoomAugment()([sample] * 4, size, rng),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_the_generator_alone_decides(augment):
    sample = painted((20, 30, 80, 70), 1)
    before = copy.deepcopy(sample)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(results))  # the global state must not matter
        np.random.seed(len(results))
        state = torch.random.get_rng_state()
        results.append(augment(sample, 64, np.random.default_rng(seed)))
        assert torch.equal(torch.random.get_rng_state(), state)  # nor be touched
    first, again, other = results
    assert same(first, again)
    assert not np.array_equal(first.pixels, other.pixels)
    assert same(sample, before)


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (90, 120)])
def test_samples_without_boxes_and_tiny_ones_survive(augment, size):
    empty = Sample(
        np.full((*size, 3), 7, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    )
    full = Sample(
        empty.pixels,
        np.array([[0, 0, size[1], size[0]]], np.float32),
        np.zeros(1, np.int64),
    )
    for seed in range(12):
        result = augment(empty, 32, np.random.default_rng(seed))
        check_form(result, 32)
        assert len(result.boxes) == 0
        check_form(augment(full, 32, np.random.default_rng(seed)), 32)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), seeds)
def test_the_box_follows_a_saturated_object_through_ssd(flip, vertical, seed):
    # Hue and channels may be anything afterwards, but grey stays grey.
    sample = painted((30, 20, 100, 75), 0)
    augment = SSDAugment(flip=flip, vertical_flip=vertical)
    result = augment([sample], 96, np.random.default_rng(seed))
    pixels = result.pixels.astype(int)
    vivid = pixels.max(2) - pixels.min(2)
    # Expansion fills with a mean that is not quite grey; the object is far from it.
    rows, columns = np.nonzero(vivid > max(50, vivid.max() / 2))
    for box in result.boxes:
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(seen - box).max() <= 4, (seen, box)


def test_ssd_keeps_objects_expands_and_crops():
    sample = painted((30, 20, 100, 75), 0)
    areas = []
    for seed in range(40):
        result = SSDAugment()([sample], 96, np.random.default_rng(seed))
        areas += (result.boxes[:, 2:] - result.boxes[:, :2]).prod(1).tolist()
    plain = 70 * 55 * (96 / 120) * (96 / 90)
    assert len(areas) > 30
    assert min(areas) < plain / 2
    assert max(areas) > plain * 1.2


@examples
@given(noise(), seeds)
def test_ssd_crops_overlap_as_asked_and_lie_inside(sample, seed):
    rng = np.random.default_rng(seed)
    canvas = np.array(sample.pixels.shape[1::-1], float)
    x1, y1, x2, y2 = _crop(sample.boxes, canvas, rng)
    assert -1e-9 <= x1 < x2 <= canvas[0] + 1e-9
    assert -1e-9 <= y1 < y2 <= canvas[1] + 1e-9
    width, height = np.array([x2 - x1, y2 - y1]) / canvas
    assert 0.3 - 1e-9 <= (width * height) ** 0.5 <= 1 + 1e-9
    assert 0.5 - 1e-9 <= width / height <= 2 + 1e-9


def test_ssd_samplers_are_chosen_alike():
    # A box that fills the canvas: a crop's overlap with it is its share of the area.
    box, canvas = np.array([[0, 0, 80, 80]], np.float32), np.array([80.0, 80.0])
    shares = []
    for seed in range(700):
        x1, y1, x2, y2 = _crop(box, canvas, np.random.default_rng(seed))
        shares.append((x2 - x1) * (y2 - y1) / 6400)
    shares = np.array(shares)
    # The whole image, and the sampler of 0.9, which nearly always finds one in 50 tries.
    assert np.mean(shares > 1 - 1e-9) == pytest.approx(1 / 7, abs=0.05)
    assert np.mean((shares >= 0.9) & (shares <= 1 - 1e-9)) > 1 / 7
    assert np.mean(shares < 0.3) == pytest.approx(2 / 7 * 0.35, abs=0.06)  # samplers 0 and 0.1


@settings(deadline=None, max_examples=40)
@given(seeds, st.booleans())
def test_ssd_colours_follow_their_definition(seed, contrast_first):
    """Against the same steps in floats, one pixel at a time, hue and saturation by colorsys."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    change = Distortion.draw(rng)._replace(contrast_first=float(contrast_first))
    made = np.asarray(change.apply(Image.fromarray(pixels)), float)
    for found, pixel in zip(made.reshape(-1, 3), pixels.reshape(-1, 3), strict=True):
        exact = distorted(pixel / 255, change)
        assert np.abs(found - 255 * exact).max() <= 3, (pixel, change)


def distorted(pixel: np.ndarray, change: Distortion) -> np.ndarray:
    value = (pixel + change.brightness / 255).clip(0, 1)
    if change.contrast_first:
        value = (value * change.contrast).clip(0, 1)
    hue, saturation, light = colorsys.rgb_to_hsv(*value)
    turned = (hue + change.hue) % 1, min(1.0, saturation * change.saturation), light
    value = np.array(colorsys.hsv_to_rgb(*turned))
    return value if change.contrast_first else (value * change.contrast).clip(0, 1)


def test_half_of_each_colour_change_is_left_out():
    drawn = [Distortion.draw(np.random.default_rng(seed)) for seed in range(600)]
    for values, none in zip(zip(*drawn, strict=True), Distortion(), strict=True):
        assert np.mean(np.array(values) == none) == pytest.approx(0.5, abs=0.08)
    brightness, contrast, saturation, hue, _ = (np.array(v) for v in zip(*drawn, strict=True))
    for values, low, high in (
        (brightness, -32, 32),
        (contrast, 0.5, 1.5),
        (saturation, 0.5, 1.5),
        (hue, -0.1, 0.1),
    ):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
