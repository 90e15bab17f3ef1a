"""Open images from anywhere, safely: an RGB picture as displayed, or a one-line `ImageError`."""

import errno
import io
import os
import stat
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from vovnet.errors import ImageError
from vovnet.images.orientation import orientation, upright
from vovnet.images.pixels import to_rgb
from vovnet.text import one_line

MAX_PIXELS = 64_000_000

# What is opened, and the suffixes of each. Pillow's other formats are documents, icons, films and
# data, or told by their suffix alone. JPEG's decoder also opens MPO, the two-picture JPEG of
# stereo cameras and phones.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
}
IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_BY_PLUGIN = ("HEIF", "JXL")  # opened where a package has taught them to Pillow
_REASONS = {
    errno.ENOENT: "no such file; check the path",
    errno.ENOTDIR: "no such file; check the path",
    errno.EACCES: "permission denied; make it readable for this user",
    errno.EPERM: "permission denied; make it readable for this user",
    errno.ELOOP: "a loop of symbolic links; point the link at a file",
}


Size = tuple[int, int]


class ImageHeader(NamedTuple):
    """What a file says before its pixels; sizes are (height, width)."""

    size: Size  # as displayed
    orientation: int  # EXIF's, 1 (upright) to 8: what turns the stored pixels into the picture

    @property
    def stored(self) -> Size:
        """The size before `orientation` is applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def load_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> Image.Image:
    """The image at `path` as an RGB picture, turned the way its EXIF says it is displayed.

    Transparency is shown on white. Of values with more than 8 bits the upper 8 are kept, as the
    format counts them; floats are 0 to 1 (see `vovnet.images.pixels`). Of an animation the first
    frame is returned.
    `shrink_to` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, faster, while both sides
    stay at least `shrink_to` pixels; `image_size` and `open_image` give the size before that.

    Raises `ImageError` for what is missing, empty, damaged, no regular file, of another format
    than `FORMATS`, of pixels whose white is not known (32-bit integers, floats elsewhere), or
    over `max_pixels` (by its header, before anything is decoded; Pillow's own ceiling of 179
    million stays in any case).
    """
    return open_image(path, max_pixels=max_pixels, shrink_to=shrink_to)[0]


def open_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, shrink_to: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `load_image`, with the (height, width) of the whole image as displayed."""
    with opened(path) as image:
        return _decode(image, one_line(path), max_pixels, shrink_to)


def decode_image(
    data: bytes,
    name: str = "image",
    *,
    max_pixels: int = MAX_PIXELS,
    shrink_to: int | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `open_image`, from the bytes of a file that errors call `name`."""
    if not data:
        raise ImageError(f"{one_line(name)}: is empty (0 bytes); send it again")
    with _header(io.BytesIO(data), one_line(name)) as image:
        return _decode(image, one_line(name), max_pixels, shrink_to)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as displayed, EXIF applied, from the header alone; raises `ImageError`."""
    return image_header(path).size


def image_header(path: str | Path) -> ImageHeader:
    """Size and EXIF orientation, without decoding a pixel; raises `ImageError`."""
    with opened(path) as image:
        return header_of(image)


def header_of(image: Image.Image) -> ImageHeader:
    """The same of an image that `opened` yields."""
    return ImageHeader(_displayed_size(image), orientation(image))


def is_picture(path: str | Path) -> bool:
    """Whether a file's suffix is that of a picture that is opened here; no file is looked at."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in IMAGE_SUFFIXES or Image.EXTENSION.get(suffix) in _taught()


def _taught() -> list[str]:
    return [name for name in _BY_PLUGIN if name in Image.OPEN]


def _formats() -> list[str]:
    return [*FORMATS, *_taught()]


@contextmanager
def opened(path: str | Path) -> Generator[Image.Image, None, None]:
    """Pillow's image of a file, nothing decoded yet; errors of the body become `ImageError`s."""
    with _open_file(path) as file, _header(file, one_line(path)) as image:
        yield image


@contextmanager
def _open_file(path: str | Path) -> Generator[BinaryIO, None, None]:
    name = one_line(path)
    try:
        # Opening a named pipe would wait for its writer, so the kind is checked first.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: is a folder; give an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: is a pipe, device or socket; give an image file")
        if status.st_size == 0:
            raise ImageError(f"{name}: is empty (0 bytes); copy or download it again")
        file = open(path, "rb")  # noqa: SIM115 (closed below; errors of the body are not ours)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{one_line(error.strerror)}; check the path")
        raise ImageError(f"{name}: {reason}") from error
    except ValueError as error:
        raise ImageError(f"{name}: not a path ({error}); check the path") from error
    with file:
        yield file


@contextmanager
def _header(file: BinaryIO, name: str) -> Generator[Image.Image, None, None]:
    """The image of `file`, not yet decoded; every error of the body becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            # Too many pixels is an error of ours, and odd metadata spoils no picture. Only Pillow's
            # warnings, because a thread beside this one can keep the filter longer.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(file, formats=_formats()) as image:
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not a readable picture (JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000, "
            "PNM or QOI); check the file, or convert it to one of these"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has too many pixels to open safely; shrink it") from error
    except MemoryError as error:
        raise ImageError(f"{name}: does not fit into memory; shrink it") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ImageError(
            f"{name}: damaged image ({one_line(error)}); replace the file or leave it out"
        ) from error


def _decode(
    image: Image.Image, name: str, max_pixels: int, shrink_to: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.1f} million pixels, over the "
            f"limit of {max_pixels / 1e6:.4g} million; make it smaller"
        )
    size = _displayed_size(image)
    turn = orientation(image)
    if shrink_to is not None:
        image.draft(None, (max(shrink_to, 1), max(shrink_to, 1)))
    picture = to_rgb(image, name)
    picture.info.clear()  # else its EXIF could be applied a second time
    return upright(picture, turn), size


def _displayed_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation(image) >= 5 else (height, width)
