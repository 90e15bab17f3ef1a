"""Pixels of any kind as 8-bit RGB, by one rule for training and for use.

Of samples with more than 8 bits the upper 8 are kept, as the format counts them: in 16 bits, 65535
is white, in a TIFF of 12 bits a sample 4095. What the image itself holds decides nothing: one hot
pixel must not darken the others, nor one picture be seen otherwise than the next. PNG's sBIT and
TIFF's MaxSampleValue change nothing either, as their specifications ask.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageFile

from vovnet.errors import ImageError

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_OUTSIDE = 0.01  # of the pixels, and of the range: what overshoots or is broken in a sound picture
_DARK = 64


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened image as RGB, transparency on white; decodes it.

    Floats are 0 (black) to 1 (white). Raises `ImageError`, which begins with `name`, for pixels of
    which nobody knows what is white: floats that lie elsewhere, and integers of 32 bits.
    """
    _mend_planes(image, name)
    if image.mode == "F":
        return _grey(_of_floats(np.asarray(image), name), image)
    if image.mode.startswith("I"):
        return _grey(_of_integers(image, name), image)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    image.load()
    return image.convert("RGB")


def depth_note(image: Image.Image, picture: Image.Image | None = None) -> str | None:
    """How `to_rgb` reads pixels of more than 8 bits; None if `image`, not yet decoded, has none.

    With the RGB `picture` that it gave, also whether that is dark because fewer bits were used.
    """
    bits = _bits(image)
    if image.format == "PPM":  # whose header says what is white
        return None
    if image.mode == "F":
        note = "floating-point pixels, 0 is black and 1 is white"
    elif bits > 8:
        note = f"{bits} bits a sample, of which the upper 8 are used: {2**bits - 1} is white"
    else:
        return None
    brightest = 255 if picture is None else int(np.asarray(picture).max())
    if brightest < _DARK:
        note += f"; nothing is brighter than {brightest} of 255: save it over the whole range"
    return note


def _bits(image: Image.Image) -> int:
    """Bits of a sample, as far as Pillow tells before it decodes."""
    if (tags := _tags(image)) is not None:
        return max(tags.get(_BITS_PER_SAMPLE, (1,)))
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    wide = image.mode.startswith("I") or any(";16" in str(tile.args) for tile in tiles)
    return 16 if wide else 8


def _tags(image: Any) -> Any:
    """The tags of an opened TIFF, else None; told without its plugin, which takes time to import
    that most pictures do not need."""
    return image.tag_v2 if image.format == "TIFF" else None


def _mend_planes(image: Image.Image, name: str) -> None:
    """Pillow takes uncompressed planes of 16 bits for planes of 8, which gives stripes."""
    if (tags := _tags(image)) is None or _bits(image) != 16:
        return
    assert isinstance(image, ImageFile.ImageFile)
    tiles = [(tile, tile.args) for tile in image.tile if isinstance(tile.args, tuple)]
    planes = {args[0] for _, args in tiles}
    if all(";" in plane for plane in planes):
        return
    if not planes <= {*"RGBA"}:
        raise ImageError(f"{name}: 16-bit {image.mode} in planes is not read; save it as RGB")
    order = "B" if tags.prefix == b"MM" else "L"
    image.tile = [tile._replace(args=(f"{args[0]};16{order}", *args[1:])) for tile, args in tiles]


def _of_integers(image: Image.Image, name: str) -> np.ndarray:
    """The upper 8 bits of grey samples, H×W uint8."""
    bits = _bits(image)
    if bits > 16:
        raise ImageError(
            f"{name}: integers of {bits} bits, whose white is not known; save it with 8 or 16 bits"
        )
    values = np.asarray(image).astype(np.int32)
    if image.format == "TIFF" and image.mode == "I":  # those with a sign
        values += 1 << bits - 1
    levels = (values >> bits - 8).clip(0, 255).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        levels[values == clear] = 255
    return levels


def _of_floats(values: np.ndarray, name: str) -> np.ndarray:
    """Floats 0..1 as H×W uint8."""
    inside = (values >= -_OUTSIDE) & (values <= 1 + _OUTSIDE)  # NaN is not
    if inside.mean() < 1 - _OUTSIDE:
        raise ImageError(
            f"{name}: floating-point pixels outside 0 (black) to 1 (white); "
            "scale them to that, or save it with 8 bits"
        )
    return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)


def _grey(levels: np.ndarray, image: Image.Image) -> Image.Image:
    if (tags := _tags(image)) is not None and tags.get(_PHOTOMETRIC) == 0:
        levels = 255 - levels  # white is zero; of 8 bits, Pillow turns it round itself
    return Image.fromarray(levels).convert("RGB")
