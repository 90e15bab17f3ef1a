"""The pictures that people hand to a detector, as RGB images the way they are displayed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vovnet.errors import ImageError
from vovnet.images import decode_image, open_image
from vovnet.images.orientation import upright
from vovnet.images.pixels import to_rgb
from vovnet.text import one_line

_TAKEN = (
    "a path, the bytes of a picture file, a PIL image, a uint8 array H×W×3 or H×W, "
    "a tensor 3×H×W, or several: a list, an array N×H×W×3, a tensor N×3×H×W"
)


class Picture(NamedTuple):
    """An RGB image as displayed, perhaps decoded smaller; the (height, width) of the whole; and
    the file that it came from, if any."""

    image: Image.Image
    size: tuple[int, int]
    path: Path | None = None


def to_pictures(
    given: Any, *, bgr: bool = False, shrink_to: int | None = None
) -> tuple[list[Picture], bool]:
    """What `given` shows, and whether it was one picture and not a sequence of them.

    `bgr` says that arrays and tensors hold blue, green, red, as OpenCV's arrays do. Float tensors
    hold 0 (black) to 1 (white), others 0 to 255. `shrink_to` is `open_image`'s, for files.
    Raises `ImageError` for a picture that cannot be read, and for anything else than `_TAKEN`.
    """
    several = _several(given)
    if several is None:
        return [_picture(given, bgr, shrink_to)], True
    return [_picture(one, bgr, shrink_to) for one in several], False


def _several(given: Any) -> Sequence[Any] | None:
    """The pictures of a sequence; None if `given` is not one."""
    if isinstance(given, Picture):
        return None
    if isinstance(given, list | tuple):
        return given
    if isinstance(given, np.ndarray) or _is_tensor(given):
        return list(given) if given.ndim == 4 else None
    return None


def _picture(given: Any, bgr: bool, shrink_to: int | None) -> Picture:
    if isinstance(given, Picture):
        return given
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        return Picture(*open_image(path, shrink_to=shrink_to), path)
    if isinstance(given, bytes | bytearray | memoryview):
        return Picture(*decode_image(bytes(given), shrink_to=shrink_to))
    if isinstance(given, Image.Image):
        return _whole(_as_rgb(given))
    if _is_tensor(given):
        given = _of_tensor(given)
    if isinstance(given, np.ndarray):
        return _whole(_of_array(given, bgr))
    raise ImageError(f"cannot detect in a {type(given).__name__}; give {_TAKEN}")


def _whole(image: Image.Image) -> Picture:
    return Picture(image, (image.height, image.width))


def _as_rgb(image: Image.Image) -> Image.Image:
    try:
        turned = upright(image)
        turned.load()  # what was only opened may be damaged further on
        if turned.mode == "RGB" and not turned.has_transparency_data:
            return turned
        return to_rgb(turned, "image")
    except ImageError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ImageError(f"image: damaged ({one_line(error)}); open it anew") from error


def _of_array(pixels: np.ndarray, bgr: bool) -> Image.Image:
    grey = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        shape = "×".join(map(str, pixels.shape))
        raise ImageError(f"cannot detect in an array {shape} {pixels.dtype}; give {_TAKEN}")
    if min(pixels.shape[:2]) == 0:
        raise ImageError("cannot detect in an array without pixels")
    if grey:
        return Image.fromarray(pixels).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if bgr else pixels))


def _is_tensor(given: Any) -> bool:
    """Whether it is torch's, told without importing it."""
    return type(given).__module__.partition(".")[0] == "torch" and hasattr(given, "detach")


def _of_tensor(given: Any) -> np.ndarray:
    """A tensor 3×H×W as the array H×W×3 uint8 of its picture."""
    pixels = given.detach().cpu()
    pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        shape = "×".join(map(str, pixels.shape))
        raise ImageError(f"cannot detect in a tensor {shape}; give {_TAKEN}")
    pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind != "f":
        return pixels.astype(np.uint8) if pixels.dtype == np.uint8 else _bytes(pixels, 255)
    return np.rint(_bytes(pixels, 1.0) * np.float32(255)).astype(np.uint8)


def _bytes(pixels: np.ndarray, most: float) -> np.ndarray:
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= most):
        raise ImageError(
            f"cannot detect in a tensor with values from {pixels.min():g} to {pixels.max():g}; "
            "floats are 0 to 1, whole numbers 0 to 255, and nothing is normalised"
        )
    return pixels.astype(np.uint8) if most == 255 else pixels
