"""What the doctor found, and how it is told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vovnet.data.doctor.kinds import KINDS, Kind

_RANKS = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One fault: its kind's id, the split, the image, the object, and what exactly is wrong.

    `image` is its file name as the data set gives it, "" for a fault of the set or of a file that
    `what` names. `object` is how the annotation counts: VOC's object from 1, YOLO's line, COCO's
    annotation id. `done` says what was done about it in a cleaned copy.
    """

    id: str
    what: str
    split: str = ""
    image: str = ""
    object: int | None = None
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


@dataclass(frozen=True)
class Report:
    """The findings of one data set, the worst first. `boxes` counts all objects, mended or not.

    `pixels` says whether every image was decoded, or only its header read.
    """

    data: str
    layout: str
    splits: dict[str, int]
    images: int
    boxes: int
    pixels: bool
    findings: tuple[Finding, ...] = field(default=())

    @property
    def counts(self) -> dict[str, int]:
        """How often each id was found, the worst kinds first."""
        return dict(Counter(finding.id for finding in self.findings))

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.kind.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line: whether to train on it."""
        if not self.findings:
            return "fit to train on: no faults"
        severities = Counter[str](finding.kind.severity for finding in self.findings)
        counts = ((severities[severity], severity) for severity in _RANKS)
        listed = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for count, severity in counts)
        return f"{'not fit' if self.errors else 'fit'} to train on: {listed}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.data,
            "layout": self.layout,
            "splits": self.splits,
            "images": self.images,
            "boxes": self.boxes,
            "pixels": self.pixels,
            "findings": [finding.to_dict() for finding in self.findings],
            "counts": self.counts,
            "verdict": self.verdict,
        }


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then infos; by id within each, in the order found."""
    return tuple(sorted(findings, key=lambda f: (_RANKS[f.kind.severity], f.id)))
