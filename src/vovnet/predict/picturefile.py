"""Annotated pictures as files, in the source's own format where that keeps every colour."""

import io
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from vovnet.errors import VovnetError
from vovnet.files import write_atomically
from vovnet.predict.row import Given

FORMATS = ("png", "jpg", "webp", "tiff", "bmp")  # as they are asked for

# Pillow's format by suffix, and how it is written; of all others a picture is written as PNG. At
# these qualities thin coloured lines stay sharp.
_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 95, "subsampling": 0})
_TIFF: tuple[str, dict[str, Any]] = ("TIFF", {"compression": "tiff_deflate"})
_WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _JPEG),
    ".webp": ("WEBP", {"quality": 95}),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    ".bmp": ("BMP", {}),
}


def picture_suffix(given: Given, wanted: str | None = None) -> str:
    """The suffix of a source's annotated picture: the `wanted` one of `FORMATS`, or its own."""
    if wanted is not None:
        return f".{wanted}"
    name = unquote(urlsplit(given).path) if isinstance(given, str) else given.name
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in _WRITTEN else ".png"


def write_picture(path: Path, image: Image.Image, *, replace: bool = True) -> None:
    """Write a picture atomically, in the format of its suffix; raises `VovnetError` if that cannot
    be done."""
    kind, how = _WRITTEN[path.suffix.lower()]
    data = io.BytesIO()
    try:
        image.save(data, kind, **how)
    except (OSError, ValueError) as error:  # sides that the format cannot count
        width, height = image.size
        raise VovnetError(
            f"{path}: {width}x{height} cannot be written as {kind} ({error}); --save-format png can"
        ) from None
    write_atomically(path, data.getvalue(), replace=replace)
