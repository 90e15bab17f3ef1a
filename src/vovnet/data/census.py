"""What there is to learn in a data set, counted before the first step."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vovnet.data.finding import Finding
from vovnet.data.place import MIN_SIDE
from vovnet.data.placing import View
from vovnet.data.record import Dataset, trained
from vovnet.errors import DataError

_GOOD_SIDE = 8.0  # pixels: what a detector of stride 8 sees well
_MOST = 0.95
_LARGEST = 1536  # pixels of an input that is still practical


@dataclass(frozen=True)
class Census:
    """Images and objects of a data set, as a network with a certain input sees them.

    `used` objects are learned; of them `tiny` are under `MIN_SIDE` pixels and taught by no image
    that shows them whole. `needed` is the input side that shows `_MOST` of them at `_GOOD_SIDE`.
    """

    view: View
    images: int
    background: int
    used: int
    tiny: int
    needed: int
    set_aside: dict[str, int]  # crowds and difficult ones
    faults: dict[str, int]  # objects left out, by the kind of fault
    lost_images: dict[str, int]  # images left out, likewise

    def lines(self) -> list[str]:
        """What there is, in words, and a warning where most is lost."""
        lines = [self._summary, *([self._too_small] if self.tiny else [])]
        faults = sum(self.faults.values())
        if 2 * (self.tiny + faults) > self.used + faults:
            lines[-1] = f"WARNING: most objects are lost: {lines[-1]}"
        return lines

    def check(self) -> None:
        """Raise `DataError` if there is nothing to learn."""
        if not self.used:
            raise DataError(
                f"nothing to learn: {self._summary}; see what `vovnet doctor` says of the labels"
            )
        if self.tiny == self.used:
            raise DataError(f"nothing to learn: {self._too_small}")

    @property
    def _summary(self) -> str:
        aside = _listed(self.set_aside | self.faults, "; left out: ")
        lost = _listed(self.lost_images, "; images left out: ")
        return (
            f"{self.images} images to train on, {self.background} of them without an object; "
            f"{self.used} objects to learn{aside}{lost}"
        )

    @property
    def _too_small(self) -> str:
        height, width = self.view.size
        return (
            f"{self.tiny} of {self.used} objects are under {MIN_SIDE:.0f} pixels in an input of "
            f"{width}x{height}, and teach nothing there; {self._mend}"
        )

    @property
    def _mend(self) -> str:
        if self.needed > _LARGEST:
            return "cut the images into tiles, so that objects are larger in them"
        return f"--imgsz {self.needed} shows {_MOST:.0%} of them at {_GOOD_SIDE:.0f} or more"


def _listed(counts: dict[str, int], before: str) -> str:
    return before + ", ".join(f"{n} {name}" for name, n in counts.items()) if counts else ""


def _by_kind(findings: list[Finding]) -> dict[str, int]:
    return dict(Counter(f"{finding.id} {finding.kind.name}" for finding in findings))


def object_sides(dataset: Dataset, view: View, difficult: bool) -> np.ndarray:
    """The shorter side of every object that is learned, in pixels of the input; images of unknown
    size left out. An input of 1×1 gives shares of the input's side."""
    sides: list[np.ndarray] = [np.zeros(0)]
    for record in dataset.records:
        keep = trained(record, difficult)
        if record.size is not None and keep.any():
            boxes = record.boxes[keep].astype(np.float64)
            lengths = boxes[:, 2:] - boxes[:, :2]
            sides.append((lengths * np.array(view.scale(record.size))).min(1))
    return np.concatenate(sides)


def take_census(dataset: Dataset, view: View, difficult: bool) -> Census:
    """Count what a network with that input can learn; `difficult` objects too, if asked."""
    aside: Counter[str] = Counter()
    background = 0
    for record in dataset.records:
        keep = trained(record, difficult)
        background += not keep.any()
        aside["crowds"] += int(record.crowd.sum())
        aside["difficult"] += int((~keep & ~record.crowd).sum())
    seen = object_sides(dataset, view, difficult)
    left_out = [finding for finding in dataset.findings if finding.action == "left out"]
    objects = [finding for finding in left_out if finding.object is not None]
    images = [finding for finding in left_out if finding.object is None and finding.image]
    tiny = int((seen < MIN_SIDE).sum())
    return Census(
        view,
        len(dataset),
        background,
        len(seen),
        tiny,
        _needed(object_sides(dataset, View((1, 1), view.warp), difficult)),
        {name: count for name, count in aside.items() if count},
        _by_kind(objects),
        _by_kind(images),
    )


def _needed(sides: np.ndarray) -> int:
    """The multiple of 32 that shows most objects well, whose sides are shares of the input."""
    if not len(sides):
        return 0
    side = _GOOD_SIDE / float(np.quantile(sides, 1 - _MOST))
    return int(np.ceil(side / 32)) * 32
