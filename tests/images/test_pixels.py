"""Pictures of more than 8 bits a sample, written here byte by byte: Pillow cannot write most."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.errors import ImageError
from vovnet.images import load_image, open_image, opened
from vovnet.images.pixels import depth_note

# Upper bytes by hand: 257 = 1·256 + 1, 33023 = 128·256 + 255, 4095 = 15·256 + 255.
WIDE = np.array(
    [
        [[0, 257, 65535], [32768, 32896, 33023], [255, 256, 511]],
        [[4095, 2048, 100], [1, 2, 3], [65280, 65279, 500]],
    ]
)
UPPER = [[[0, 1, 255], [128, 128, 128], [0, 1, 1]], [[15, 8, 0], [0, 0, 0], [255, 254, 1]]]
GREY = [[0, 128, 0], [15, 0, 255]]  # of WIDE's first samples


def png(samples: np.ndarray, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG of H×W×C samples; `colour` is PNG's type: 0 grey, 2 RGB, 4 and 6 with alpha."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in every
    )


def tiff(
    samples: np.ndarray,
    kind: str = "u2",
    *,
    order: str = "<",
    planes: bool = False,
    packed: bool = False,
    **tags: int,
) -> bytes:
    """A TIFF of H×W×C samples of NumPy's `kind`, in one strip, or one for each of its `planes`."""
    height, width, count = samples.shape
    values = samples.astype(f"{order}{kind}")
    strips = [values[..., i].tobytes() for i in range(count)] if planes else [values.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    entries: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * count,
        259: [8 if packed else 1],
        262: [tags.get("photometric", 2 if count > 2 else 1)],
        273: starts[:-1],
        277: [count],
        278: [height],
        279: [len(strip) for strip in strips],
        284: [2 if planes else 1],
        339: [{"u": 1, "i": 2, "f": 3}[kind[0]]] * count,
    }
    if count == 4 and tags.get("photometric") != 5:
        entries[338] = [tags.get("alpha", 2)]
    if "most" in tags:
        entries[281] = [tags["most"]] * count
    entries = dict(sorted(entries.items()))
    table, far = struct.pack(f"{order}H", len(entries)), b""
    after = starts[-1] + 2 + 12 * len(entries) + 4
    for tag, numbers in entries.items():
        body = struct.pack(f"{order}{len(numbers)}I", *numbers)
        where = body if len(numbers) == 1 else struct.pack(f"{order}I", after + len(far))
        table += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + where
        far += body if len(numbers) > 1 else b""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    head = mark + struct.pack(f"{order}I", starts[-1])
    return head + b"".join(strips) + table + struct.pack(f"{order}I", 0) + far


def shown(folder: Path, data: bytes) -> np.ndarray:
    """The pixels of a file, in training's way and in use's, which are one."""
    path = folder / "x.picture"
    path.write_bytes(data)
    pixels = np.asarray(load_image(path))
    assert np.array_equal(pixels, np.asarray(open_image(path, shrink_to=8)[0]))
    return pixels


def grey(folder: Path, data: bytes) -> list[list[int]]:
    pixels = shown(folder, data)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_rgb_of_16_bits_in_tiff(tmp_path, order, planes, packed):
    data = tiff(WIDE, order=order, planes=planes, packed=packed)
    assert shown(tmp_path, data).tolist() == UPPER
    opaque = np.concatenate((WIDE, np.full((2, 3, 1), 65535)), -1)
    data = tiff(opaque, order=order, planes=planes, packed=packed)
    assert shown(tmp_path, data).tolist() == UPPER


def test_planes_of_8_bits_stay_as_they_are(tmp_path):
    assert shown(tmp_path, tiff(np.array(UPPER), "u1", planes=True)).tolist() == UPPER


def test_rgb_of_16_bits_in_png(tmp_path):
    assert shown(tmp_path, png(WIDE, 2)).tolist() == UPPER
    clear = np.concatenate((WIDE, np.zeros((2, 3, 1))), -1)
    clear[0, 0, 3] = 65535
    expected = np.full((2, 3, 3), 255)
    expected[0, 0] = UPPER[0][0]
    assert shown(tmp_path, png(clear, 6)).tolist() == expected.tolist()


def test_grey_of_16_bits(tmp_path):
    samples = WIDE[..., :1]
    assert grey(tmp_path, png(samples, 0)) == GREY
    for order in "<>":
        assert grey(tmp_path, tiff(samples, order=order)) == GREY
        assert grey(tmp_path, tiff(samples, order=order, packed=True)) == GREY
    assert grey(tmp_path, b"P5 3 2 65535\n" + samples.astype(">u2").tobytes()) == GREY


def test_grey_that_is_clear_in_one_value_is_white_there(tmp_path):
    data = png(WIDE[..., :1], 0, (b"tRNS", struct.pack(">H", 4095)))
    assert grey(tmp_path, data) == [[0, 128, 0], [255, 0, 255]]


def test_a_tiff_whose_zero_is_white(tmp_path):
    inverse = [[255, 127, 255], [240, 255, 0]]
    assert grey(tmp_path, tiff(WIDE[..., :1], photometric=0)) == inverse
    assert grey(tmp_path, tiff(WIDE[..., :1] >> 8, "u1", photometric=0)) == inverse
    floats = np.array([[[0.0], [1.0], [0.2]]])
    assert grey(tmp_path, tiff(floats, "f4", photometric=0)) == [[255, 0, 204]]


def test_integers_with_a_sign_are_black_at_the_least(tmp_path):
    samples = np.array([[[-32768], [-32513], [0], [32767]]])
    assert grey(tmp_path, tiff(samples, "i2")) == [[0, 0, 128, 255]]


def test_one_hot_pixel_changes_no_other(tmp_path):
    calm = np.full((4, 4, 1), 2000)
    hot = calm.copy()
    hot[0, 0] = 65535
    for write in (lambda samples: png(samples, 0), tiff):
        before, after = grey(tmp_path, write(calm)), grey(tmp_path, write(hot))
        assert after[0][0] == 255
        assert after[0][1:] == before[0][1:] == [7, 7, 7]  # 2000 = 7·256 + 208
        assert after[1:] == before[1:]


def test_what_a_file_says_of_its_contents_scales_nothing(tmp_path):
    """Both specifications: not to affect how the picture is displayed."""
    assert grey(tmp_path, tiff(WIDE[..., :1], most=4095)) == GREY
    assert grey(tmp_path, png(WIDE[..., :1], 0, (b"sBIT", b"\x0c"))) == GREY


def test_12_bits_a_sample_are_white_at_4095(tmp_path):
    # Two samples in three bytes: 0x000, 0xFFF, 0x800, 0x7FF.
    data = bytearray(tiff(np.zeros((1, 4, 1)), "u1", most=1))
    data = bytes(data).replace(
        struct.pack("<HHII", 258, 4, 1, 8), struct.pack("<HHII", 258, 4, 1, 12)
    )
    data = data.replace(struct.pack("<HHII", 279, 4, 1, 4), struct.pack("<HHII", 279, 4, 1, 6))
    strip = struct.pack("<HHII", 273, 4, 1, 8)
    data = data.replace(strip, struct.pack("<HHII", 273, 4, 1, len(data)))
    data += bytes([0x00, 0x0F, 0xFF, 0x80, 0x07, 0xFF])
    assert grey(tmp_path, data) == [[0, 255, 128, 127]]


def test_floats_are_black_at_0_and_white_at_1(tmp_path):
    samples = np.full((20, 20, 1), 0.5)
    samples[0, :4, 0] = [0, 1, 0.2, 7]  # one of 400 overshoots
    pixels = grey(tmp_path, tiff(samples, "f4"))
    assert pixels[0][:5] == [0, 255, 51, 255, 128]
    for wrong in (samples * 255, samples - 1, samples * np.nan):
        with pytest.raises(ImageError, match=r"picture: floating-point pixels outside 0 \(black\)"):
            shown(tmp_path, tiff(wrong, "f4"))


@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_integers_of_32_bits_are_refused(tmp_path, kind):
    with pytest.raises(ImageError, match="integers of 32 bits, whose white is not known"):
        shown(tmp_path, tiff(WIDE[..., :1], kind))


def test_planes_that_pillow_cannot_put_together_are_refused(tmp_path):
    ink = np.concatenate((WIDE, WIDE[..., :1]), -1)
    with pytest.raises(ImageError, match="16-bit CMYK in planes is not read; save it as RGB"):
        shown(tmp_path, tiff(ink, planes=True, photometric=5))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(WIDE, 2), "16 bits a sample, of which the upper 8 are used: 65535 is white"),
        (png(WIDE[..., :1], 0), "16 bits a sample"),
        (tiff(WIDE), "16 bits a sample"),
        (tiff(WIDE, planes=True, packed=True), "16 bits a sample"),
        (tiff(WIDE[..., :1] / 65535, "f4"), "0 is black and 1 is white"),
        (tiff(WIDE >> 4), "nothing is brighter than 15 of 255"),
        (tiff(np.array(UPPER), "u1"), None),
        (b"P6 1 1 65535\n123456", None),
    ],
)
def test_what_the_doctor_is_told(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    with opened(tmp_path / "x") as image:
        note, brief = depth_note(image, load_image(tmp_path / "x")), depth_note(image)
    assert (note is None) if words is None else (words in note)
    assert note is None or note.startswith(brief)


def test_a_jpeg_2000_of_16_bits(tmp_path):
    Image.fromarray(WIDE[..., 0].astype(np.uint16)).save(tmp_path / "x.jp2")
    assert np.asarray(load_image(tmp_path / "x.jp2"))[..., 0].tolist() == GREY
