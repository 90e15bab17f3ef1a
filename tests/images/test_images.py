import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vovnet.errors import ImageError
from vovnet.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    decode_image,
    image_header,
    image_size,
    is_picture,
    load_image,
    open_image,
)


def picture(width: int = 32, height: int = 20) -> Image.Image:
    """A picture with no symmetry, so that every turn of it differs."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, 0 * rows + 60], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def refusal(path: Path | str, **options) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_format(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    picture().save(path)
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (32, 20))
    assert image_size(path) == (20, 32)
    assert np.abs(np.asarray(image, int) - np.asarray(picture(), int)).mean() < 8


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "I;16"])
def test_every_mode(tmp_path, mode):
    path = tmp_path / "x.tiff"
    source = picture() if mode not in {"LAB", "I;16"} else picture().convert("L")
    source = Image.new("LAB", (32, 20)) if mode == "LAB" else source.convert(mode)
    source.save(path)
    assert (load_image(path).mode, load_image(path).size) == ("RGB", (32, 20))


def test_suffixes_are_those_that_pillow_knows_for_the_formats():
    theirs = Image.registered_extensions() | {".mpo": "JPEG", ".dib": "DIB"}
    for kind, suffixes in FORMATS.items():
        assert set(suffixes) == {suffix for suffix in theirs if theirs[suffix] == kind}
    assert is_picture("a/b.JFIF")
    assert is_picture(Path("b.avif"))
    for name in ("clip.mp4", "paper.pdf", "drawing.eps", "icon.ico", "scan.heic", "jpg", ".jpg"):
        assert not is_picture(name)


def test_a_format_that_a_package_taught_to_pillow(monkeypatch):
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    assert not is_picture("scan.heic")
    monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])
    assert is_picture("scan.HEIC")


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(path, quality=95)
    assert np.allclose(np.asarray(load_image(path)).mean((0, 1)), (250, 20, 20), atol=6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_shown_on_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "x.png")
    shown = load_image(tmp_path / "x.png")
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_transparent_palette(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=0)
    shown = load_image(tmp_path / "x.png")
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


def test_one_pixel(tmp_path):
    Image.new("L", (1, 1), 7).save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png").getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    path = tmp_path / f"x{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(path, exif=exif)
    with Image.open(path) as plain:
        expected = ImageOps.exif_transpose(plain).convert("RGB")
    image, size = open_image(path)
    assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert size == image_size(path) == (expected.height, expected.width)
    header = image_header(path)
    assert header.size == size
    assert header.stored == ((20, 32) if suffix != ".tiff" else size)  # Pillow turns TIFF itself
    assert ImageOps.exif_transpose(image).size == image.size


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_odd_orientation_is_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    picture().save(tmp_path / "x.jpg", exif=exif)
    assert load_image(tmp_path / "x.jpg").size == (32, 20)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    picture().save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert load_image(tmp_path / "x.jpg").size == (32, 20)


def test_shrink_to_keeps_the_shorter_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(800, 400).save(tmp_path / "x.jpg", exif=exif)
    image, size = open_image(tmp_path / "x.jpg", shrink_to=90)
    assert (image.size, size) == ((100, 200), (800, 400))
    assert load_image(tmp_path / "x.jpg", shrink_to=500).size == (400, 800)
    assert load_image(tmp_path / "x.jpg", shrink_to=0).size == (50, 100)


def test_bytes(tmp_path):
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    image, size = decode_image(buffer.getvalue(), "upload")
    assert (image.size, size) == ((32, 20), (20, 32))
    for data in (b"", b"<html>", buffer.getvalue()[:60], png_header(30_000, 30_000)):
        with pytest.raises(ImageError, match=r"^up\\nload: ") as caught:
            decode_image(data, "up\nload")
        assert "\n" not in str(caught.value)


def test_refuses_what_is_no_image_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "drawing.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    assert "no such file" in refusal(tmp_path / "missing.jpg")
    assert "no such file" in refusal(tmp_path / "text.jpg" / "x.jpg")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.jpg")
    assert "not a readable" in refusal(tmp_path / "text.jpg")
    assert "not a readable" in refusal(tmp_path / "drawing.jpg")
    assert "not a path" in refusal("a\0b.jpg")
    assert refusal(tmp_path / ("x" * 300)).startswith(str(tmp_path))
    assert refusal(tmp_path / "two\nlines.jpg").startswith(str(tmp_path / "two\\nlines.jpg"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_never_opens_pipes_sockets_devices_or_loops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    os.mkfifo("pipe.jpg")
    Path("loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        assert "pipe, device or socket" in refusal("s.jpg")
    assert "pipe, device or socket" in refusal("pipe.jpg")
    assert "pipe, device or socket" in refusal(os.devnull)
    assert "loop of symbolic links" in refusal("loop.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_permission_denied(tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    assert "permission denied" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in (message := refusal(path)) or "not a readable" in message


@pytest.mark.parametrize("size", [(9000, 9000), (12_000, 9000), (60_000, 60_000)])
def test_bombs_are_refused_by_their_header(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png_header(*size))
    assert "pixels" in refusal(tmp_path / "x.png")


def test_the_limit_is_a_choice(tmp_path):
    picture().save(tmp_path / "x.png")
    assert MAX_PIXELS > 50_000_000
    assert load_image(tmp_path / "x.png", max_pixels=32 * 20).size == (32, 20)
    message = refusal(tmp_path / "x.png", max_pixels=32 * 20 - 1)
    assert message.endswith("; make it smaller")
    assert "max_pixels" not in message


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, suffix)
    return buffer.getvalue()


SAMPLES = [encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_bytes_decode_or_are_refused(sample, data):
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image, size = decode_image(bytes(damaged), max_pixels=1_000_000)
    except ImageError as error:
        message = str(error)
    else:
        message = ""
        assert image.mode == "RGB"
        assert size == (image.height, image.width)
    assert "\n" not in message
