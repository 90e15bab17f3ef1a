"""Which class is taken for which, and for background: what is not there, and what is missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hotcoco import COCOeval

BACKGROUND = "background"
OTHERS = "other classes"
_MOST = 15  # classes that are told apart; more would not be read


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of (object's class, detection's class); the last row is what is not there, the last
    column what is missed. `left_out` classes are counted together, before the background."""

    names: tuple[str, ...]
    counts: np.ndarray
    left_out: int = 0


def confusion(evaluation: "COCOeval", names: Sequence[str]) -> Confusion:
    """hotcoco's matrix at an IoU of 0.5, of the detections in an evaluation."""
    counts = evaluation.confusion_matrix(iou_thr=0.5)["matrix"].astype(np.int64)
    return shortened(Confusion((*names, BACKGROUND), counts), _MOST)


def shortened(whole: Confusion, most: int) -> Confusion:
    """The classes with the most mistakes, the others counted together."""
    classes = len(whole.names) - 1
    if classes <= most:
        return whole
    counts = whole.counts
    mistakes = (counts.sum(0) + counts.sum(1) - 2 * counts.diagonal())[:-1]
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    place = np.full(classes + 1, most - 1)
    place[kept], place[-1] = np.arange(most - 1), most
    small = np.zeros((most + 1, most + 1), np.int64)
    np.add.at(small, (place[:, None], place[None]), counts)
    names = (*(whole.names[i] for i in kept), OTHERS, BACKGROUND)
    return Confusion(names, small, classes - len(kept))


def mix_ups(whole: np.ndarray, names: Sequence[str], most: int = 5) -> list[tuple[str, str, int]]:
    """The classes that are taken for each other most: (object's, detection's, how often)."""
    pairs = whole[:-1, :-1] * (1 - np.eye(len(whole) - 1, dtype=np.int64))
    order = np.argsort(-pairs, axis=None, kind="stable")[:most]
    found = [np.unravel_index(i, pairs.shape) for i in order]
    return [(names[a], names[b], int(pairs[a, b])) for a, b in found if pairs[a, b]]
