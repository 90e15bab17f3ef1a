"""Faults of single objects: each check is a function of one box in an image of a known size."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from vovnet.data._common import Box, clip_box
from vovnet.data.coco import is_number
from vovnet.data.doctor.masks import MaskShape, mask_fault, mask_shape
from vovnet.data.doctor.raw import Layout, RawBox, RawImage, Size, to_corners

_USUAL_INPUT = 640
_TINY = 2.0
_MOST_FRACTION = 2.0  # a box in fractions may leave the image, but not by its whole width

# Boxes, and the shares of them, to say how all are written.
_FEW_TO_JUDGE, _MANY_OUTSIDE, _NEARLY_ALL = 20, 0.2, 0.98

Faults = Iterator[tuple[str, str]]


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

    @property
    def inside(self) -> Box | None:
        """What of it lies in the image, None if nothing does or the size is unknown."""
        corners = self.corners
        if corners is None or self.size is None or box_fault(self) not in _USABLE:
            return None
        return clip_box(corners, self.size)[0]


def box_fault(placed: Placed) -> str:
    """The id of the first thing that is wrong with where the box lies, or ""."""
    given, corners, size = placed.box.given, placed.corners, placed.size
    if corners is None:
        return "VD201"
    if wrong_unit(placed):
        return "VD208" if placed.layout == "yolo" else "VD207"
    x1, y1, x2, y2 = given if placed.layout == "voc" else corners
    if min(x2 - x1, y2 - y1) < 0:
        return "VD202"
    if min(x2 - x1, y2 - y1) == 0:
        return "VD203"
    return _outside(placed, corners, size) if size else ""


def wrong_unit(placed: Placed) -> bool:
    """Whether the numbers look like fractions where pixels are meant, or the reverse."""
    given = placed.box.given
    if placed.layout == "yolo":
        return max(given) > _MOST_FRACTION
    whole = all(value.is_integer() for value in given)
    return not whole and all(0 <= value <= 1 for value in given)


def _outside(placed: Placed, corners: Box, size: Size) -> str:
    (x1, y1, x2, y2), (height, width) = corners, size
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return "VD204"
    clipped, fault = clip_box(corners, size)
    if clipped is None:
        return "VD203"
    if not fault:
        return ""
    from_zero = min(placed.box.given) >= 0 and x2 <= width and y2 <= height
    return "VD206" if placed.layout == "voc" and from_zero else "VD205"


_USABLE = ("", "VD205", "VD206")


def written_as_corners(every: Iterable[Placed]) -> bool:
    """Whether a whole set's boxes are two corners each, where sides are expected: many of them
    leave their image as they stand, and hardly any does the other way."""
    count = outside = inside = 0
    for placed in every:
        count += 1
        outside += box_fault(placed) in ("VD204", "VD205")
        inside += placed.opposite is not None
    many = count >= _FEW_TO_JUDGE and outside >= _MANY_OUTSIDE * count
    return many and inside >= _NEARLY_ALL * count


def _place(placed: Placed) -> Faults:
    if fault := box_fault(placed):
        numbers = ", ".join(f"{value:.6g}" for value in placed.box.given[:8])
        size = f" in {placed.size[1]}x{placed.size[0]}" if placed.size else ""
        yield fault, f"({numbers}){size}" if numbers else "no four finite numbers"


def _extent(placed: Placed) -> Faults:
    inside, size = placed.inside, placed.size
    if inside is None or size is None:
        return
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if min(width, height) * min(1.0, _USUAL_INPUT / max(size)) < _TINY:
        yield "VD209", f"{width:.4g}x{height:.4g} px in {size[1]}x{size[0]}"
    if width > size[1] - 1 and height > size[0] - 1:
        yield "VD210", f"{width:.4g}x{height:.4g} px in {size[1]}x{size[0]}"


def _mask(placed: Placed) -> Faults:
    box, size = placed.box, placed.size
    if box.crowd and box.mask is not None and not isinstance(box.mask, dict):
        yield "VD506", "iscrowd is 1, and the mask is no run-length code"
    if size is None:
        return
    if fault := mask_fault(box.mask, size):
        yield fault
        return
    inside, shape = placed.inside, mask_shape(box.mask)
    if inside is not None and shape is not None and (what := _misfit(shape.bounds, inside)):
        yield "VD504", what
    if inside is not None and (what := _wrong_area(box, shape, inside)):
        yield "VD505", what


def _misfit(bounds: Box, inside: Box) -> str:
    """How the mask's bounds differ from the box by more than drawing and rounding do."""
    side = max(inside[2] - inside[0], inside[3] - inside[1])
    off = max(abs(a - b) for a, b in zip(bounds, inside, strict=True))
    return f"off by {off:.4g} px" if off > max(3.0, 0.1 * side) else ""


def _wrong_area(box: RawBox, shape: MaskShape | None, inside: Box) -> str:
    if box.area is None:
        return ""
    whole = (inside[2] - inside[0]) * (inside[3] - inside[1])
    if not is_number(box.area) or box.area < 0:
        return "no number from 0 on"
    if shape is None:
        return f"{box.area:.6g}, the box {whole:.6g}" if box.area > 1.1 * whole + 10 else ""
    off = abs(box.area - shape.area) > 0.25 * shape.area + 20
    return f"{box.area:.6g}, the mask {shape.area:.6g}" if shape.plain and off else ""


BOX_CHECKS: tuple[Callable[[Placed], Faults], ...] = (_place, _extent, _mask)


def repeated(image: RawImage) -> Iterator[tuple[str, str, RawBox]]:
    """Boxes of an image that are there before: (id, what, box)."""
    seen: dict[tuple[float, ...], dict[str | None, int]] = {}
    for box in image.boxes:
        if not box.given or box.crowd:
            continue
        before = seen.setdefault(tuple(round(value, 6) for value in box.given), {})
        if box.name in before:
            yield "VD211", f"that of object {before[box.name]} again", box
        elif before:
            name, number = next(iter(before.items()))
            yield "VD212", f"{box.name} here, {name} as object {number}", box
        before.setdefault(box.name, box.number)
