"""Where boxes lie: in an image as displayed, or in its stored pixels before EXIF turns it."""

import math
from typing import NamedTuple

from vovnet.images import ImageHeader, Size

_SMALLEST_SIDE = 1e-3
# Boxes rescaled and rounded by a tool end a fraction of a pixel outside; that is no fault.
_ROUNDING = 0.25

Box = tuple[float, float, float, float]


class Frame(NamedTuple):
    """An image's (height, width) as displayed, and the EXIF orientation that its boxes still lack.

    The orientation is 1 where the boxes are drawn on the picture as displayed.
    """

    size: Size
    orientation: int = 1

    @property
    def drawn(self) -> Size:
        """The (height, width) of the pixels that the boxes are drawn on."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def find_frame(given: Size | None, header: ImageHeader) -> Frame | None:
    """The frame that the boxes of an image are drawn in; None if its annotation gives neither of
    the image's sizes.

    `given` is the (height, width) in the annotation, None if it has none. If it is that of the
    stored pixels and not of the displayed ones, the boxes lack the EXIF orientation. Orientations
    2 to 4 and square images look the same in both, and count as displayed.
    """
    if given in (None, header.size):
        return Frame(header.size)
    return Frame(*header) if given == header.stored else None


def clip_box(box: Box, size: Size) -> tuple[Box | None, str]:
    """`box` (xyxy pixels) clipped to an image of `size` (height, width), and its fault.

    The box is None if nothing of it is left; the fault is "" if there was none.
    """
    height, width = size
    if not all(map(math.isfinite, box)):
        return None, f"box {_show(box)} is not finite"
    x1, y1, x2, y2 = box
    clipped = (
        min(max(x1, 0.0), float(width)),
        min(max(y1, 0.0), float(height)),
        min(max(x2, 0.0), float(width)),
        min(max(y2, 0.0), float(height)),
    )
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < _SMALLEST_SIDE:
        return None, f"box {_show(box)} has no area in the {width}x{height} image"
    outside = max(-x1, -y1, x2 - width, y2 - height)
    if outside <= _ROUNDING:
        return clipped, ""
    return clipped, f"box {_show(box)} leaves the {width}x{height} image by {outside:.4g} px"


def turn_box(box: Box, frame: Frame) -> Box:
    """The xyxy box, in pixels of the frame as annotated, in pixels of the image as displayed."""
    (height, width), orientation = frame
    x1, y1, x2, y2 = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def _show(box: Box) -> str:
    return f"({', '.join(f'{value:.6g}' for value in box)})"
