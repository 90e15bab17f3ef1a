"""Faults of single objects: each check is a function of one box in its image, and of how large a
network will see that."""

from collections.abc import Callable, Iterator

from vovnet.data.formats.coco import is_number
from vovnet.data.frame import Box
from vovnet.data.mask_code import MaskShape, mask_fault, mask_shape
from vovnet.data.place import MIN_SIDE
from vovnet.data.placing import Placed, View, shown
from vovnet.data.raw import RawBox, RawImage

Faults = Iterator[tuple[str, str]]


def _place(placed: Placed, _: View) -> Faults:
    if fault := placed.fault:
        yield fault, shown(placed.box.given, placed.size)


def _extent(placed: Placed, view: View) -> Faults:
    inside, size = placed.inside, placed.size
    if inside is None or size is None:
        return
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    x, y = view.scale(size)
    if min(width * min(x, 1), height * min(y, 1)) < MIN_SIDE:
        yield "VD209", f"{width:.4g}x{height:.4g} px in {size[1]}x{size[0]}"
    if width > size[1] - 1 and height > size[0] - 1:
        yield "VD210", f"{width:.4g}x{height:.4g} px in {size[1]}x{size[0]}"


def _mask(placed: Placed, _: View) -> Faults:
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


BOX_CHECKS: tuple[Callable[[Placed, View], Faults], ...] = (_place, _extent, _mask)


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
