"""Every kind of picture that `detect` takes becomes the same RGB image; all else is refused."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vovnet.detect.pictures import Picture, to_pictures
from vovnet.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
TALL = np.ascontiguousarray(PIXELS.transpose(1, 0, 2))


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


IMAGE = Image.fromarray(PIXELS)
KINDS = {
    "PIL": IMAGE,
    "bytes": png(IMAGE),
    "bytearray": bytearray(png(IMAGE)),
    "memoryview": memoryview(png(IMAGE)),
    "array": PIXELS,
    "array that is not contiguous": np.asfortranarray(PIXELS),
    "whole tensor": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "long tensor": torch.from_numpy(PIXELS).permute(2, 0, 1).long(),
    "float tensor": torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
    "double tensor": torch.from_numpy(PIXELS).permute(2, 0, 1).double() / 255,
    "tensor that learns": (torch.from_numpy(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
    "ready": Picture(IMAGE, (5, 7)),
}


def one(given: object, **options: object) -> np.ndarray:
    """The pixels that a single picture comes to."""
    [picture], single = to_pictures(given, **options)
    assert single
    assert picture.image.mode == "RGB"
    assert picture.size == (picture.image.height, picture.image.width)
    return np.asarray(picture.image)


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture(kind):
    assert np.array_equal(one(KINDS[kind]), PIXELS)


def test_a_file(tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(png(IMAGE))
    for given in (path, str(path)):
        [picture], single = to_pictures(given)
        assert single
        assert picture.path == path
        assert np.array_equal(np.asarray(picture.image), PIXELS)


@pytest.mark.parametrize(
    "several",
    [
        list(KINDS.values()),
        tuple(KINDS.values()),
        np.stack([PIXELS] * 2),
        torch.stack([torch.from_numpy(PIXELS).permute(2, 0, 1)] * 2),
        [PIXELS],
    ],
    ids=["list", "tuple", "array", "tensor", "one in a list"],
)
def test_several(several):
    pictures, single = to_pictures(several)
    assert not single
    assert len(pictures) == len(several)
    assert all(np.array_equal(np.asarray(picture.image), PIXELS) for picture in pictures)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 5, 7, 3), np.uint8), torch.zeros(0, 3, 5, 7)])
def test_none_at_all(nothing):
    assert to_pictures(nothing) == ([], False)


def test_pictures_of_different_sizes():
    pictures, _ = to_pictures([PIXELS, TALL])
    assert [picture.size for picture in pictures] == [(5, 7), (7, 5)]


def test_exif_turns():
    shown = np.rot90(PIXELS, -1)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to display
    file = io.BytesIO(png(IMAGE, exif=exif))
    assert np.array_equal(one(file.getvalue()), shown)
    with Image.open(file) as opened:
        assert np.array_equal(one(opened), shown)


def test_bgr_is_of_arrays_and_tensors():
    """What has an order of its own is not touched."""
    for kind in ("array", "whole tensor", "float tensor"):
        assert np.array_equal(one(KINDS[kind], bgr=True), PIXELS[..., ::-1])
    for kind in ("PIL", "bytes", "ready"):
        assert np.array_equal(one(KINDS[kind], bgr=True), PIXELS)
    assert np.array_equal(one(PIXELS[..., 0], bgr=True), one(PIXELS[..., 0]))


def test_grey_and_binary():
    grey = PIXELS[..., 0]
    expected = np.stack([grey] * 3, 2)
    assert np.array_equal(one(grey), expected)
    assert np.array_equal(one(Image.fromarray(grey)), expected)
    assert set(np.unique(one(Image.fromarray(grey > 127)))) == {0, 255}


def test_16_bits_keep_the_upper_8():
    deep = (PIXELS[..., 0].astype(np.uint16) << 8) + 77
    expected = np.stack([PIXELS[..., 0]] * 3, 2)
    assert np.array_equal(one(Image.fromarray(deep)), expected)
    assert np.array_equal(one(png(Image.fromarray(deep))), expected)


def test_transparency_is_white():
    alpha = np.full((5, 7, 1), 255, np.uint8)
    alpha[:2] = 0
    image = Image.fromarray(np.concatenate([PIXELS, alpha], 2))
    expected = PIXELS.copy()
    expected[:2] = 255
    assert np.array_equal(one(image), expected)
    assert np.array_equal(one(png(image)), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "P", "LA", "PA", "RGBX"])
def test_pillows_other_modes(mode):
    plain = Image.new("RGB", (7, 5), (200, 100, 50))
    image = plain.convert("L").convert(mode) if mode in ("LA", "PA") else None
    if mode == "LAB":
        image = Image.new("LAB", (7, 5))
    assert one(image or plain.convert(mode)).shape == (5, 7, 3)


def test_a_palette_with_a_transparent_entry():
    image = Image.new("P", (7, 5), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0
    pixels = one(image)
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[4, 6].tolist() == [10, 20, 30]


def test_jpegs_are_decoded_small():
    file = io.BytesIO()
    Image.new("RGB", (800, 640), "red").save(file, "JPEG")
    [picture], _ = to_pictures(file.getvalue(), shrink_to=160)
    assert picture.image.size == (200, 160)
    assert picture.size == (640, 800)


def test_half_floats_and_their_rounding():
    levels = torch.arange(256).reshape(1, 16, 16).expand(3, -1, -1)
    for dtype in (torch.float16, torch.float32, torch.float64):
        values = (levels / 255).to(dtype)
        assert np.array_equal(one(values)[..., 0], levels[0].numpy())
    assert one(torch.full((3, 2, 2), 0.5)).max() == 128  # 127.5, to the even neighbour


TAKEN = (
    "; give a path, the bytes of a picture file, a PIL image, a uint8 array H×W×3 or H×W, "
    "a tensor 3×H×W, or several: a list, an array N×H×W×3, a tensor N×3×H×W"
)
VALUES = "; floats are 0 to 1, whole numbers 0 to 255, and nothing is normalised"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "a NoneType" + TAKEN),
        (3, "a int" + TAKEN),
        ({"image": PIXELS}, "a dict" + TAKEN),
        (PIXELS.astype(np.float32), "an array 5×7×3 float32" + TAKEN),
        (PIXELS.astype(np.int64), "an array 5×7×3 int64" + TAKEN),
        (PIXELS[..., :2], "an array 5×7×2 uint8" + TAKEN),
        (PIXELS.transpose(2, 0, 1), "an array 3×5×7 uint8" + TAKEN),
        (PIXELS[0, 0], "an array 3 uint8" + TAKEN),
        (np.zeros((2, 5, 7, 4), np.uint8), "an array 5×7×4 uint8" + TAKEN),
        (np.zeros((0, 7, 3), np.uint8), "an array without pixels"),
        (torch.zeros(5, 7, 3), "a tensor 5×7×3" + TAKEN),
        (torch.zeros(5, 7), "a tensor 5×7" + TAKEN),
        (torch.full((3, 5, 7), 2.0), "a tensor with values from 2 to 2" + VALUES),
        (torch.full((3, 5, 7), -0.5), "a tensor with values from -0.5 to -0.5" + VALUES),
        (torch.full((3, 5, 7), torch.nan), "a tensor with values from nan to nan" + VALUES),
        (torch.full((3, 5, 7), 256), "a tensor with values from 256 to 256" + VALUES),
        ([PIXELS, None], "a NoneType" + TAKEN),
        ([[PIXELS]], "a list" + TAKEN),
    ],
)
def test_what_is_refused(given, told):
    with pytest.raises(ImageError) as error:
        to_pictures(given)
    assert str(error.value) == f"cannot detect in {told}"


def test_empty_tensors_are_refused():
    with pytest.raises(ImageError, match="without pixels"):
        to_pictures(torch.zeros(3, 0, 7))


@pytest.mark.parametrize("content", [b"", b"no picture", png(IMAGE)[:60]])
def test_bytes_that_are_no_picture(content):
    with pytest.raises(ImageError) as error:
        to_pictures(content)
    assert "\n" not in str(error.value)


def test_an_opened_image_that_is_cut_off(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
    path.write_bytes(png(Image.fromarray(noise))[:9000])
    with Image.open(path) as image, pytest.raises(ImageError) as error:
        to_pictures(image)
    assert str(error.value).startswith("image: damaged (")
    assert str(error.value).endswith("); open it anew")


def test_it_says_nothing_beside():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS.values():
            to_pictures(kind)
