import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.errors import VovnetError
from vovnet.input_spec import InputSpec, Placement

MEAN, STD = (123.0, 117.0, 104.0), (58.0, 57.0, 56.0)
WARP = InputSpec((48, 64), "warp", MEAN, STD)
LETTERBOX = InputSpec((48, 64), "letterbox", MEAN, STD, pad=90, multiple=16)
specs = st.sampled_from([WARP, LETTERBOX])
sides = st.integers(1, 500)


def plain(width: int, height: int, colour: tuple[int, int, int] = (200, 10, 30)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


@given(specs, sides, sides, st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(deadline=None, max_examples=60)
def test_boxes_find_their_way_back(spec, width, height, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    pixels, place = spec.prepare(plain(width, height))
    assert pixels.shape == (*spec.size, 3)
    assert (place.width, place.height) == (width, height)
    scale = np.array([place.scale_x, place.scale_y] * 2)
    inside = box * scale + np.array([place.offset_x, place.offset_y] * 2)
    limit = np.array([spec.size[1], spec.size[0]] * 2)
    assert (inside >= -1e-6).all()
    assert (inside <= limit + 1e-6).all()
    back = place.to_image(inside.astype(np.float32)[None])[0]
    # Positions are float32 in the input: an input pixel may be many in the image.
    assert np.abs(back - box).max() <= 1e-3 + 1e-4 * max(width, height)


@given(sides, sides)
@settings(deadline=None, max_examples=60)
def test_letterbox_keeps_the_shape_and_fills_one_direction(width, height):
    pixels, place = LETTERBOX.prepare(plain(width, height))
    image_width, image_height = place.scale_x * width, place.scale_y * height
    # Sides are whole pixels, at least one: each differs from the ideal by up to a half.
    ideal = min(64 / width, 48 / height)
    assert abs(image_width - max(1, width * ideal)) <= 0.5 + 1e-6
    assert abs(image_height - max(1, height * ideal)) <= 0.5 + 1e-6
    assert round(image_width) == 64 or round(image_height) == 48
    # Centred, the image's colour inside and the pad outside.
    left, top = int(place.offset_x), int(place.offset_y)
    right, bottom = left + round(image_width), top + round(image_height)
    assert abs(left - (64 - right)) <= 1
    assert abs(top - (48 - bottom)) <= 1
    is_image = (pixels == (200, 10, 30)).all(2)
    assert is_image[top:bottom, left:right].all()
    assert is_image.sum() == (bottom - top) * (right - left)
    assert ((pixels == 90).all(2) | is_image).all()


@given(sides, sides)
@settings(deadline=None, max_examples=30)
def test_warp_fills_the_input(width, height):
    pixels, place = WARP.prepare(plain(width, height))
    assert (pixels == (200, 10, 30)).all()
    assert place == Placement(64 / width, 48 / height, 0, 0, height, width)


@pytest.mark.parametrize("spec", [WARP, LETTERBOX], ids=["warp", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(400, 200), (150, 300), (64, 48), (30, 20)])
def test_the_placement_is_where_the_pixels_are(spec, width, height):
    """A white rectangle on black, found in the input, maps back to where it was painted."""
    box = (width // 5, height // 4, width * 3 // 5, height * 3 // 4)
    image = plain(width, height, (0, 0, 0))
    image.paste((255, 255, 255), box)
    pixels, place = spec.prepare(image)
    rows, columns = np.nonzero(pixels.min(2) > 128)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    back = place.to_image(np.array([found], np.float32))[0]
    a_pixel = max(1.0, 1 / place.scale_x, 1 / place.scale_y)
    assert np.abs(back - np.array(box)).max() <= a_pixel


def test_boxes_are_clipped_to_the_image():
    _, place = LETTERBOX.prepare(plain(32, 12))  # twice as large, 12 rows above and below
    boxes = np.array([[-10.0, 0.0, 100.0, 47.0], [20.0, 22.0, 30.0, 26.0]])
    assert place.to_image(boxes).tolist() == [[0, 0, 32, 12], [10, 5, 15, 7]]


@pytest.mark.parametrize("spec", [WARP, LETTERBOX], ids=["warp", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 1), (1, 3000), (2, 1500)])
def test_extreme_images(spec, width, height):
    pixels, place = spec.prepare(plain(width, height))
    assert pixels.dtype == np.uint8
    assert (pixels == (200, 10, 30)).all(2).any()
    assert min(place.scale_x, place.scale_y) > 0
    whole = np.array([[0.0, 0.0, 64.0, 48.0]])
    assert place.to_image(whole)[0].tolist() == pytest.approx([0, 0, width, height], rel=1e-6)


def test_normalize_by_hand():
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    pixels[1, 2, 3] = (255, 117, 48)
    images = LETTERBOX.normalize(pixels)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images[0, :, 0, 0].tolist() == pytest.approx([-123 / 58, -117 / 57, -104 / 56])
    assert images[1, :, 2, 3].tolist() == pytest.approx([132 / 58, 0.0, -1.0])


def test_with_side():
    assert LETTERBOX.with_side(160, "m").size == (160, 160)
    assert LETTERBOX.size == (48, 64)
    for side in (0, -16, 15, 100):
        with pytest.raises(VovnetError, match=rf"^m: --imgsz {side} is not a positive multiple"):
            LETTERBOX.with_side(side, "m")
    assert InputSpec((8, 8), "warp", MEAN, STD, multiple=1).with_side(1, "m").size == (1, 1)
    square = InputSpec((300, 300), "warp", MEAN, STD)
    assert square.with_side(300, "m") == square
    for side in (0, 299, 512):
        with pytest.raises(VovnetError, match=rf"^m: takes 300 pixels only, not --imgsz {side}$"):
            square.with_side(side, "m")


@pytest.mark.parametrize("spec", [WARP, LETTERBOX], ids=["warp", "letterbox"])
def test_json_round_trip(spec):
    again = InputSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    "size", [(0, 64), (64, -1), (8193, 64), (2.5, 64), (64, "64"), (64,), (64, 64, 64), [64, 64]]
)
def test_sizes_that_no_input_has(size):
    with pytest.raises(VovnetError, match=r"must be two whole numbers in 1\.\.8192"):
        InputSpec(size, "warp", MEAN, STD)
    assert InputSpec((1, 8192), "warp", MEAN, STD).size == (1, 8192)


def test_earlier_versions_read_what_is_usual():
    """They know neither place nor channels, which are written only where they are others."""
    assert not {"place", "channels"} & set(LETTERBOX.to_dict())
    other = InputSpec((4, 6), "letterbox", MEAN, STD, place="top left", channels="bgr")
    assert (other.to_dict()["place"], other.to_dict()["channels"]) == ("top left", "bgr")


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalising_gives_the_bits_of_the_plain_formula(channels):
    pixels = np.arange(2 * 16 * 24 * 3).astype(np.uint8).reshape(2, 16, 24, 3)
    mean, std = (123.675, 116.28, 0.3), (58.395, 57.12, 0.7)
    spec = InputSpec((16, 24), "warp", mean, std, channels=channels)
    plain = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    plain = plain[..., ::-1] if channels == "bgr" else plain
    images = spec.normalize(pixels)
    assert images.flags.c_contiguous
    assert np.array_equal(images, plain.transpose(0, 3, 1, 2))
    assert spec.normalize(pixels[:, ::2, ::-1]).tolist() == images[:, :, ::2, ::-1].tolist()
    assert spec.normalize(pixels[:0]).shape == (0, 3, 16, 24)
