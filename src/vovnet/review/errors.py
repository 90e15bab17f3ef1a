"""What kinds of mistakes there are, and what each costs in AP (TIDE, by hotcoco)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotcoco import COCOeval

# hotcoco's key, the name here, and what it means.
_KINDS = (
    ("Miss", "missed", "an object that nothing found"),
    ("Bkg", "nothing there", "a detection where no object is"),
    ("Cls", "wrong class", "an object well framed, and named wrongly"),
    ("Loc", "poor box", "the right class, overlapping its object by less than half"),
    ("Both", "wrong class, poor box", "both at once"),
    ("Dupe", "found twice", "a second detection of the same object"),
)


@dataclass(frozen=True)
class ErrorKind:
    """A kind of mistake: `cost` is how much AP at an IoU of 0.5 would be won without it, over all
    scores; `count` is how often it is made above the confidence."""

    name: str
    meaning: str
    cost: float
    count: int


def error_kinds(every: "COCOeval", shown: "COCOeval") -> list[ErrorKind]:
    """The kinds of mistakes of all detections, and of those that are shown."""
    costs = every.tide_errors()["delta_ap"]
    counts = shown.tide_errors()["counts"]
    return [
        ErrorKind(name, meaning, float(costs[key]), int(counts[key]))
        for key, name, meaning in _KINDS
    ]
