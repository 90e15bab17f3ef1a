"""What a cleaned copy keeps of an image: boxes mended where that is safe, the rest left out."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from vovnet.data.doctor.box_checks import repeated
from vovnet.data.doctor.image_checks import Pictured
from vovnet.data.frame import Box, Frame, Size, clip_box, turn_box
from vovnet.data.mask_code import usable_mask
from vovnet.data.placing import Placed
from vovnet.data.raw import Layout, RawBox, RawImage, to_corners

_DROP_IMAGE = {"VD101", "VD102", "VD103", "VD104", "VD105", "VD115", "VD119", "VD315"}
_UPRIGHT = {"VD108", "VD109", "VD111"}
_OUTSIDE = ("VD204", "VD205", "VD208")
_SAME_SHAPE = 0.02  # how far the two ratios of a resized image may differ, by rounding

Pixels = Literal["as they are", "upright", "stored"]


class Mended(NamedTuple):
    """An object that is kept: where it lies in the image of the copy, in pixels."""

    box: RawBox
    corners: Box
    mask: Any
    changed: bool


class Kept(NamedTuple):
    """An image that is kept. `pixels` says how they are written, under which `suffix`."""

    image: RawImage
    size: Size
    boxes: tuple[Mended, ...]
    suffix: str
    pixels: Pixels
    changed: bool


def mend_image(
    pictured: Pictured, layout: Layout, ids: Mapping[int | None, Collection[str]]
) -> Kept | None:
    """The image with what is left of its objects, None if it is left out.

    `ids` are what was found: of the image under None, of its objects under their numbers.
    """
    image, facts, of_image = pictured.image, pictured.facts, set(ids.get(None, ()))
    header, scale = facts.header if facts else None, _scale(pictured)
    if header is None or scale is None or of_image & _DROP_IMAGE:
        return None
    frame = Frame(header.stored) if "VD107" in of_image else pictured.frame or Frame(header.size)
    placed = [Placed(layout, box, pictured.box_size) for box in image.boxes]
    if "VD106" in of_image and any(box.fault in _OUTSIDE for box in placed):
        return None  # so the boxes are not drawn in the size that the annotation says
    later = {id(box) for id_, _, box in repeated(image) if id_ == "VD211"}
    once = (box for box in placed if id(box.box) not in later)
    boxes = (_mend(of_box, ids.get(of_box.box.number, ()), scale) for of_box in once)
    kept = tuple(_turned(box, frame) for box in boxes if box is not None)
    suffix, pixels = _file(pictured, of_image)
    changed = bool(ids) or len(kept) < len(image.boxes) or any(box.changed for box in kept)
    return Kept(image, frame.size, kept, suffix, pixels, changed)


def _scale(pictured: Pictured) -> tuple[float, float] | None:
    """How much wider and higher the image is than annotated; None if that is no resizing."""
    given, header = pictured.image.size, pictured.facts.header if pictured.facts else None
    if pictured.frame is not None or given is None or header is None:
        return 1.0, 1.0
    x, y = header.size[1] / given[1], header.size[0] / given[0]
    return (x, y) if abs(x / y - 1) <= _SAME_SHAPE else None


def _turned(mended: Mended, frame: Frame) -> Mended:
    if frame.orientation == 1:
        return mended
    return mended._replace(corners=turn_box(mended.corners, frame), changed=True)


def _file(pictured: Pictured, of_image: set[str]) -> tuple[str, Pixels]:
    """The suffix of the file in the copy, and whether its pixels are written anew."""
    path, facts = pictured.image.path, pictured.facts
    if path is None or facts is None:
        return "", "as they are"
    kept = "VD110" not in of_image
    suffix = {"JPEG": ".jpg", "MPO": ".jpg"}.get(facts.format, ".png")
    if of_image & _UPRIGHT or "VD107" in of_image:
        same = kept and facts.format in ("JPEG", "MPO", "PNG")
        return path.suffix if same else suffix, "stored" if "VD107" in of_image else "upright"
    if kept:
        return path.suffix, "as they are"
    return suffix, "as they are" if facts.format in ("JPEG", "MPO", "PNG") else "upright"


def _mend(placed: Placed, ids: Collection[str], scale: tuple[float, float]) -> Mended | None:
    """The object in pixels of the whole image, `scale` (x, y) times as large."""
    box, size = placed.box, placed.size
    corners = _corners(placed)
    if corners is None or size is None or box.name is None:
        return None
    clipped, _ = clip_box(corners, size)
    if clipped is None:
        return None
    x, y = scale
    moved = (clipped[0] * x, clipped[1] * y, clipped[2] * x, clipped[3] * y)
    if placed.layout == "voc" and min(moved[2] - moved[0], moved[3] - moved[1]) <= 1:
        return None  # one pixel, which VOC cannot tell from none
    mask = _mask(box.mask, size, scale)
    changed = moved != placed.corners or mask != box.mask or "VD505" in ids or box.reread
    return Mended(box, moved, mask, changed)


def _corners(placed: Placed) -> Box | None:
    """xyxy in pixels with swapped corners and wrong units put right; None where that is a guess."""
    layout, given, size = placed.layout, placed.box.given, placed.size
    fault = placed.fault
    if size is None or fault == "VD201":
        return None
    height, width = size
    if fault == "VD207":
        a, b, c, d = given[0] * width, given[1] * height, given[2] * width, given[3] * height
        return (a, b, c, d) if layout == "voc" else (a, b, a + c, b + d)
    if fault == "VD208":
        corners = to_corners("yolo", given, (1, 1))
        inside = corners is not None and clip_box(corners, size) == (corners, "")
        return corners if inside else None
    if fault == "VD202" and layout == "voc":
        x1, y1, x2, y2 = given
        given = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    corners = to_corners(layout, given, size)
    if corners is None or fault != "VD202":
        return corners
    x1, y1, x2, y2 = corners
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _mask(mask: Any, size: Size, scale: tuple[float, float]) -> Any:
    """The mask without what cannot be read, `scale` times as large; [] if nothing is left."""
    mask, _ = usable_mask(mask, size)
    if not mask or scale == (1.0, 1.0):
        return mask
    if isinstance(mask, dict):
        return []
    return [[value * scale[i % 2] for i, value in enumerate(polygon)] for polygon in mask]
