"""COCO's segmentations, read without trusting them: their faults, bounds and area."""

from typing import Any, NamedTuple

import numpy as np

from vovnet.data.formats.coco import is_id, is_number
from vovnet.data.frame import Box, Size
from vovnet.errors import DataError

# A polygon is drawn by stepping along its sides: one that ends far away never does.
_FAR = 16  # times the image's longer side


class MaskShape(NamedTuple):
    """Bounds xyxy and area in px² of a mask; `plain` if the area is that and not about that."""

    bounds: Box
    area: float
    plain: bool


def mask_fault(mask: Any, size: Size) -> tuple[str, str] | None:
    """The id and description of a fault in how the mask is written, for an image of `size`."""
    if not mask:
        return None
    if isinstance(mask, dict):
        return _code_fault(mask, size)
    if not isinstance(mask, list):
        return "VD502", f"a {type(mask).__name__}"
    for number, polygon in enumerate(mask, start=1):
        if not isinstance(polygon, list) or len(polygon) % 2 or not _are_numbers(polygon):
            return "VD502", f"polygon {number} is no list of x, y, x, y, …"
        if len(polygon) < 6:
            return "VD501", f"polygon {number} has {len(polygon) // 2} points"
        if max(max(polygon), -min(polygon)) > _FAR * max(size):
            return "VD502", f"polygon {number} reaches far out of the image"
    return None


def _are_numbers(values: list[Any]) -> bool:
    # Nearly all are plain; only the others are looked at one by one.
    return set(map(type, values)) <= {int, float} and all(map(is_number, values))


def usable_mask(mask: Any, size: Size) -> tuple[Any, tuple[str, str] | None]:
    """What can be used of a mask, [] where its fault (id, description) leaves nothing."""
    fault = mask_fault(mask, size)
    if fault and fault[0] == "VD501":
        whole = [polygon for polygon in mask if not isinstance(polygon, list) or len(polygon) >= 6]
        return ([] if mask_fault(whole, size) else whole), fault
    return ([] if fault else mask), fault


def encode_mask(mask: Any, size: Size) -> dict[str, Any]:
    """A COCO segmentation (polygons or a run-length code) as one compressed run-length code.

    Raises `DataError` for one with a fault, before anything of its size is made.
    """
    from hotcoco import mask as coco_mask

    if fault := mask_fault(mask, size):
        raise DataError(f"a segmentation cannot be read ({fault[1]})")
    try:
        code = coco_mask.fr_py_objects(mask, *size)
        return coco_mask.merge(code) if isinstance(code, list) else code
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"a segmentation cannot be read ({' '.join(str(error).split())})") from None


def mask_shape(mask: Any) -> MaskShape | None:
    """The shape of a mask without fault; None if there is none, or nothing in it."""
    if not mask:
        return None
    return _code_shape(mask) if isinstance(mask, dict) else _polygon_shape(mask)


def _polygon_shape(polygons: list[list[float]]) -> MaskShape:
    points = [np.reshape(np.asarray(polygon, dtype=np.float64), (-1, 2)) for polygon in polygons]
    every = np.concatenate(points)
    areas = [abs(float(np.sum(_cross(p, np.roll(p, -1, axis=0))))) / 2 for p in points]
    (x1, y1), (x2, y2) = every.min(axis=0), every.max(axis=0)
    return MaskShape((float(x1), float(y1), float(x2), float(y2)), sum(areas), len(polygons) == 1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _code_fault(mask: dict[str, Any], size: Size) -> tuple[str, str] | None:
    given = mask.get("size")
    if not isinstance(given, list) or len(given) != 2 or not all(map(is_id, given)):
        return "VD502", "a run-length code without size"
    if tuple(given) != tuple(size):
        return "VD503", f"{given[1]}x{given[0]} in {size[1]}x{size[0]}"
    runs = _runs(mask.get("counts"))
    if runs is None or min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        return "VD502", "run lengths that do not fill the image"
    return None


def _code_shape(mask: dict[str, Any]) -> MaskShape | None:
    height = mask["size"][0]
    runs = np.asarray(_runs(mask["counts"]) or [], dtype=np.int64)
    ends = np.cumsum(runs)
    first, last = (ends - runs)[1::2], ends[1::2] - 1  # of the runs inside the mask
    first, last = first[runs[1::2] > 0], last[runs[1::2] > 0]
    if not len(first):
        return None
    # A run that goes on in the next column touches both its top and its bottom.
    whole = first // height != last // height
    top = np.where(whole, 0, first % height).min()
    bottom = np.where(whole, height - 1, last % height).max()
    bounds = (first[0] // height, top, last[-1] // height + 1, bottom + 1)
    x1, y1, x2, y2 = map(float, bounds)
    return MaskShape((x1, y1, x2, y2), float(runs[1::2].sum()), True)


def _runs(counts: object) -> list[int] | None:
    """The run lengths, down the columns, background first; None for what is no such code.

    As text each is five bits a character from "0" on, the least first, bit 6 where more follow;
    from the fourth on they are differences to the last but one (pycocotools' maskApi.c).
    """
    if isinstance(counts, list):
        return counts if all(map(is_id, counts)) else None
    if isinstance(counts, bytes):  # as pycocotools and hotcoco return it
        counts = counts.decode("ascii", "replace")
    if not isinstance(counts, str):
        return None
    runs: list[int] = []
    value = shift = 0
    for char in counts:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs
