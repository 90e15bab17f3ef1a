"""One fault of a data set, and how faults are told: alike by `train`, `val` and the doctor."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from vovnet.data.kinds import KINDS, Kind

Action = Literal["", "refused", "left out", "mask left out", "clipped", "turned", "background"]

RANKS = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One fault: its kind's id, the split, the image, the object, and what exactly is wrong.

    `image` is its file name as the data set gives it, "" for a fault of the set or of a file that
    `what` names. `object` is how the annotation counts: VOC's object from 1, YOLO's line, COCO's
    annotation id. `action` is what reading the set for training or evaluation does about it: refuse
    the set, leave the object or image out, clip or turn its box, take it as background; "" is
    nothing. `done` says what was done about it in a cleaned copy.
    """

    id: str
    what: str
    split: str = ""
    image: str = ""
    object: int | None = None
    action: Action = ""
    done: str = ""

    @property
    def kind(self) -> Kind:
        """What is known of all faults of this id."""
        return KINDS[self.id]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; "done" only where a copy was made."""
        kind = self.kind
        row = {
            "id": self.id, "name": kind.name, "severity": kind.severity, "split": self.split,
            "image": self.image, "object": self.object, "what": self.what, "mend": kind.mend,
        }  # fmt: skip
        return row | {"done": self.done} if self.done else row

    def __str__(self) -> str:
        number = "" if self.object is None else f"object {self.object}"
        where = ", ".join(filter(None, [self.split, self.image, number]))
        return f"{where}: {self.what}" if where else self.what


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then infos; by id within each, in the order found."""
    return tuple(sorted(findings, key=lambda f: (RANKS[f.kind.severity], f.id)))


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """A line for every kind of fault that reading did something about, the worst first."""
    told = sorted(
        (finding for finding in findings if finding.action),
        key=lambda f: (RANKS[f.kind.severity], f.id, f.action),
    )
    return [
        _line(kind, action, list(same))
        for (kind, action), same in groupby(told, key=lambda f: (f.kind, f.action))
    ]


def _line(kind: Kind, action: Action, same: list[Finding]) -> str:
    first = f"first: {same[0]}" if len(same) > 1 else str(same[0])
    return f"{kind.severity} {kind.id} {kind.name}: {len(same)} {action}; {kind.mend} ({first})"
