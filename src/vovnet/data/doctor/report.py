"""What the doctor found, and how it is told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vovnet.data.finding import RANKS, Finding


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
        counts = ((severities[severity], severity) for severity in RANKS)
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
