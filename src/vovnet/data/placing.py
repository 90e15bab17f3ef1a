"""Where a written box lies in its image, and the first thing that is wrong with that."""

from collections.abc import Iterable
from typing import NamedTuple

from vovnet.data.frame import Box, Size, clip_box
from vovnet.data.raw import Layout, RawBox, to_corners

_MOST_FRACTION = 2.0  # a box in fractions may leave the image, but not by its whole width
# Boxes, and the shares of them, to say how all are written.
_FEW_TO_JUDGE, _MANY_OUTSIDE, _NEARLY_ALL = 20, 0.2, 0.98


def place_box(
    layout: Layout, given: tuple[float, ...], size: Size | None
) -> tuple[str, Box | None]:
    """The id of the first fault of a box as written, "" for none, and its part in the image.

    That is xyxy in pixels of an image of `size` (height, width; unclipped where that is unknown),
    None for a box that cannot be used.
    """
    corners = to_corners(layout, given, size or (1, 1))
    if corners is None:
        return "VD201", None
    if _wrong_unit(layout, given):
        return "VD208" if layout == "yolo" else "VD207", None
    x1, y1, x2, y2 = given if layout == "voc" else corners
    side = min(x2 - x1, y2 - y1)
    if side <= 0:
        return "VD202" if side < 0 else "VD203", None
    return ("", corners) if size is None else _clip(layout, given, corners, size)


def _wrong_unit(layout: Layout, given: tuple[float, ...]) -> bool:
    """Whether the numbers look like fractions where pixels are meant, or the reverse."""
    if layout == "yolo":
        return max(given) > _MOST_FRACTION
    return max(given) <= 1 and min(given) >= 0 and not all(value.is_integer() for value in given)


def _clip(
    layout: Layout, given: tuple[float, ...], corners: Box, size: Size
) -> tuple[str, Box | None]:
    (x1, y1, x2, y2), (height, width) = corners, size
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height and min(x2 - x1, y2 - y1) > 1:
        return "", corners
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return "VD204", None
    clipped, fault = clip_box(corners, size)
    if clipped is None:
        return "VD203", None
    if not fault:
        return "", clipped
    from_zero = min(given) >= 0 and x2 <= width and y2 <= height
    return "VD206" if layout == "voc" and from_zero else "VD205", clipped


class View(NamedTuple):
    """How an image comes into a network: its input's (height, width), stretched to it or not."""

    size: Size
    warp: bool = False

    def scale(self, image: Size) -> tuple[float, float]:
        """How much wider and higher an image of (height, width) `image` becomes."""
        x, y = self.size[1] / image[1], self.size[0] / image[0]
        return (x, y) if self.warp else (min(x, y), min(x, y))


def shown(given: tuple[float, ...], size: Size | None) -> str:
    """A box as written and the size of its image, for messages."""
    if not given:
        return "no four finite numbers"
    numbers = ", ".join(f"{value:.6g}" for value in given[:8])
    return f"({numbers}) in {size[1]}x{size[0]}" if size else f"({numbers})"


class Placed(NamedTuple):
    """One object where it is drawn; `size` of its image is None where nobody knows it."""

    layout: Layout
    box: RawBox
    size: Size | None

    @property
    def corners(self) -> Box | None:
        """xyxy in continuous pixels (of YOLO in fractions, without a size), as it is written."""
        return to_corners(self.layout, self.box.given, self.size or (1, 1))

    @property
    def fault(self) -> str:
        """The id of the first thing that is wrong with where it lies, or ""."""
        return place_box(self.layout, self.box.given, self.size)[0]

    @property
    def inside(self) -> Box | None:
        """What of it lies in the image, None if nothing does or the size is unknown."""
        return place_box(self.layout, self.box.given, self.size)[1] if self.size else None

    @property
    def opposite(self) -> Box | None:
        """xyxy in pixels of what is x, y, width, height by the layout, read as two corners; None
        where that is no box in the image."""
        given, size = self.box.given, self.size
        if self.layout == "voc" or len(given) != 4 or size is None:
            return None
        x, y = (size[1], size[0]) if self.layout == "yolo" else (1, 1)
        corners = (given[0] * x, given[1] * y, given[2] * x, given[3] * y)
        right_way = corners[0] < corners[2] and corners[1] < corners[3]
        return corners if right_way and clip_box(corners, size) == (corners, "") else None


def written_as_corners(every: Iterable[Placed]) -> bool:
    """Whether a whole set's boxes are two corners each, where sides are expected: many of them
    leave their image as they stand, and hardly any does the other way."""
    count = outside = inside = 0
    for placed in every:
        count += 1
        outside += placed.fault in ("VD204", "VD205")
        inside += placed.opposite is not None
    many = count >= _FEW_TO_JUDGE and outside >= _MANY_OUTSIDE * count
    return many and inside >= _NEARLY_ALL * count
