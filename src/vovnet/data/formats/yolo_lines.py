"""One line of a YOLO label file: a box, a polygon, or a box with key points."""

from collections.abc import Iterable

from vovnet.data.raw import numbers
from vovnet.text import one_line

Fault = tuple[str, str]  # the kind's id, and what is wrong
_SHARES = 1.5  # more is no fraction of the image, not even of an object that leaves it
_MANY = 4  # points with a number that is just 0 or 1
_FEW_LINES, _NEARLY_ALL = 20, 0.98  # to say of all lines what they hold
_BESIDE = 0.05  # of the image: how far a key point may lie outside its box


def read_line(
    line: str, key_points: tuple[int, int] | None
) -> tuple[int | None, tuple[float, ...], Fault | None]:
    """The class, the numbers of the box or polygon, and the fault of a line that is not empty.

    `key_points` says that boxes are followed by so many key points of so many numbers (2, or 3
    with the visibility); they are left aside. The class is None where it is no whole number, the
    numbers are () where one is not finite.
    """
    first, *rest = line.split()
    fault = _wrong_count(len(rest), key_points) or _hidden_key_points(rest, key_points)
    if fault:
        return None, (), fault
    given = numbers(rest)
    label = numbers([first])
    if not label or label[0] < 0 or not label[0].is_integer() or label[0] >= 2**31:
        what = f"class {one_line(first)[:50]} is not a whole number from 0 on"
        return None, given, ("VD301", what)
    return int(label[0]), given[:4] if key_points else given, None


def _wrong_count(count: int, key_points: tuple[int, int] | None) -> Fault | None:
    if key_points is not None:
        points, each = key_points
        if count in (4, 4 + points * each):
            return None
        expected = f"neither 4 nor 4 + {points}·{each}, which kpt_shape says"
        return "VD603", f"{count} numbers behind the class: {expected}"
    if count == 4 or (count >= 6 and count % 2 == 0):
        return None
    if count > 7 and (count - 4) % 3 == 0:
        what = f"{count} numbers behind the class: like a box and {(count - 4) // 3} key points"
        return "VD611", what
    return "VD603", f"{count} numbers behind the class: neither a box nor a polygon"


def _hidden_key_points(rest: list[str], key_points: tuple[int, int] | None) -> Fault | None:
    """Whether what could be a polygon by its count is a box and key points with visibilities: every
    third number of the tail is 0, 1 or 2, the others are fractions, and a polygon would be outside
    its image (2), or on its edge time after time."""
    if key_points is not None or len(rest) < 10 or (len(rest) - 4) % 3:
        return None
    values = numbers(rest)
    if not values:
        return None
    seen = values[6::3]
    others = [value for i, value in enumerate(values) if i < 4 or (i - 4) % 3 < 2]
    if (
        (2 in seen or len(seen) >= _MANY)
        and set(seen) <= {0, 1, 2}
        and all(0 <= value <= _SHARES for value in others)
    ):
        what = f"a box and {len(seen)} key points with visibilities, or a polygon outside its image"
        return "VD611", what
    return None


def hold_key_points(lines: Iterable[tuple[float, ...]]) -> int | None:
    """How many numbers all lines of a set have that are no box alone, if nearly all of them read as
    a box with key points in it, and there are enough to tell; else None.

    The first two points of a polygon say nothing about where its others lie.
    """
    longer = [given for given in lines if len(given) > 4]
    counts = {len(given) for given in longer}
    if len(longer) < _FEW_LINES or len(counts) != 1:
        return None
    inside = sum(map(_points_in_box, longer))
    return counts.pop() if inside >= _NEARLY_ALL * len(longer) else None


def _points_in_box(given: tuple[float, ...]) -> bool:
    cx, cy, w, h = given[:4]
    if min(w, h) <= 0 or cx - w / 2 < -0.01 or cy - h / 2 < -0.01:
        return False
    if cx + w / 2 > 1.01 or cy + h / 2 > 1.01:
        return False
    tail = given[4:]
    triples = len(tail) % 3 == 0 and set(tail[2::3]) <= {0, 1, 2}
    each = 3 if triples else 2
    return all(
        (x == 0 and y == 0) or (abs(x - cx) <= w / 2 + _BESIDE and abs(y - cy) <= h / 2 + _BESIDE)
        for x, y in zip(tail[::each], tail[1::each], strict=False)
    )
