"""EXIF's orientation: how a picture's stored pixels are turned for display."""

from PIL import Image

_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """1 (upright) to 8, from what stands before the pixels; odd and damaged values are 1."""
    if image.format == "TIFF":  # Pillow turns these itself, size included
        return 1
    try:
        # Not `image.getexif()`: that of PNG decodes the picture to look for EXIF behind it.
        value = Image.Image.getexif(image).get(_TAG, 1)
    except Exception:  # damaged EXIF is no reason to refuse an intact picture
        return 1
    return value if value in _TURNS else 1


def upright(image: Image.Image, turn: int | None = None) -> Image.Image:
    """The picture as displayed: itself if it is so already, else a turned copy without metadata.

    `turn` is the orientation to undo, by default what the image itself says.
    """
    turn = orientation(image) if turn is None else turn
    if turn == 1:
        return image
    turned = image.transpose(_TURNS[turn])
    turned.info.clear()  # else its EXIF could be applied a second time
    return turned
