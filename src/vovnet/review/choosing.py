"""Which pictures are worth a look: most mistakes, most doubt, and labels that may be wrong."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vovnet.review.matches import Judged, Matches

if TYPE_CHECKING:
    from hotcoco import COCOeval

# So near to the confidence a detection might as well not be shown; and at most half of it.
_NEAR = 0.1
_SURE = 0.5  # score of a detection that speaks against a label


@dataclass(frozen=True)
class Chosen:
    """A picture's place in the data set, and what it was chosen for."""

    index: int
    why: str


@dataclass(frozen=True)
class Choice:
    """Pictures of three kinds; none is in two of them."""

    worst: tuple[Chosen, ...]
    doubtful: tuple[Chosen, ...]
    labels: tuple[Chosen, ...]


def choose(judged: Judged, conf: float, most: int = 4) -> Choice:
    """At most so many pictures of each kind, the first of equals first."""
    count, matches = len(judged.records), judged.matches
    false, missed, near = _counts(matches, count, conf)
    taken: set[int] = set()

    def best(weight: np.ndarray, why: list[str]) -> tuple[Chosen, ...]:
        order = [int(i) for i in np.argsort(-weight, kind="stable") if weight[i] > 0]
        chosen = [i for i in order if i not in taken][:most]
        taken.update(chosen)
        return tuple(Chosen(i, why[i]) for i in chosen)

    mistakes = [f"{a} false, {b} missed" for a, b in zip(false, missed, strict=True)]
    doubts = [f"scores within {_near(conf):.2g} of {conf:.2f}: {n}" for n in near]
    weight, against = _against_labels(judged.evaluation, judged, max(conf, _SURE))
    return Choice(best(false + missed, mistakes), best(near, doubts), best(weight, against))


def _near(conf: float) -> float:
    return min(_NEAR, conf / 2)


def _counts(
    matches: Matches, images: int, conf: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every image: false detections, missed objects, and detections near the confidence."""
    shown = matches.score > np.float32(conf)
    lost = matches.object_score <= np.float32(conf)
    near = np.abs(matches.score - conf) <= _near(conf)
    return (
        np.bincount(matches.image[shown & ~matches.hit], minlength=images),
        np.bincount(matches.object_image[lost], minlength=images),
        np.bincount(matches.image[near], minlength=images),
    )


def _against_labels(
    evaluation: "COCOeval", judged: Judged, sure: float
) -> tuple[np.ndarray, list[str]]:
    """Of every image the score of the surest detection that its labels deny, and what it says."""
    place = {record.image_id: i for i, record in enumerate(judged.records)}
    weight, why = np.zeros(len(place)), [""] * len(place)
    for one in evaluation.image_diagnostics(iou_thr=0.5, score_thr=sure)["label_errors"]:
        at = place[one["image_id"]]
        if one["dt_score"] > weight[at]:
            weight[at] = one["dt_score"]
            said = f"{one['dt_category']} {one['dt_score']:.2f}"
            wrong = one["type"] == "wrong_label"
            why[at] = f"{said}, labelled {one['gt_category']}" if wrong else f"{said}, not labelled"
    return weight, why
