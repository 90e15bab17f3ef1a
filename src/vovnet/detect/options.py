"""What of all that a network sees becomes a detection."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vovnet.errors import UnknownNameError, VovnetError

CONF, IOU, MAX_DET = 0.25, 0.6, 300


@dataclass(frozen=True)
class Options:
    """Scores above `conf` (0..1); of boxes that overlap by more than `iou` (0..1) only the best,
    among those of a class or, with `agnostic`, of all; at most `max_det` of an image (None: the
    family's own limit, 300 as a rule); labels in `classes` (None: all).

    Raises `VovnetError` for numbers outside these ranges.
    """

    conf: float = CONF
    iou: float = IOU
    max_det: int | None = None
    classes: tuple[int, ...] | None = None
    agnostic: bool = False

    def __post_init__(self) -> None:
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise VovnetError(f"--{name} {value}: must lie in 0..1")
        if self.max_det is not None and self.max_det < 1:
            raise VovnetError(f"--max-det {self.max_det}: must be at least 1")


def class_labels(
    classes: Iterable[str | int] | None, names: Sequence[str]
) -> tuple[int, ...] | None:
    """Labels of classes given by name or by number; None for None, which means all of them.

    Raises `UnknownNameError` for a name that is not in `names`, `VovnetError` for a number beyond
    them and for no class at all.
    """
    if classes is None:
        return None
    wanted = [classes] if isinstance(classes, str | int) else list(classes)
    if not wanted:
        raise VovnetError("--classes: names no class; leave it out to have all of them")
    return tuple(sorted({_label(one, names) for one in wanted}))


def _label(one: str | int, names: Sequence[str]) -> int:
    if one in names:
        return names.index(str(one))
    if not str(one).isdecimal():
        raise UnknownNameError("class", str(one), names)
    if len(str(one)) > 9 or int(one) >= len(names):  # Python reads no number of 5000 digits
        raise VovnetError(f"--classes {str(one)[:20]}: there are only 0 to {len(names) - 1}")
    return int(one)
