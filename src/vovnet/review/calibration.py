"""Whether a score of 0.7 means that seven in ten are right."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotcoco import COCOeval


@dataclass(frozen=True)
class ScoreBin:
    """Detections whose scores lie in a range: how many, their mean score, and the share that is
    right at an IoU of 0.5."""

    low: float
    high: float
    count: int
    score: float
    right: float


def calibration(evaluation: "COCOeval") -> list[ScoreBin]:
    """Ten ranges of scores, those without detections left out."""
    return [
        ScoreBin(
            one["bin_lower"],
            one["bin_upper"],
            one["count"],
            one["avg_confidence"],
            one["avg_accuracy"],
        )
        for one in evaluation.calibration(n_bins=10, iou_threshold=0.5)["bins"]
        if one["count"]
    ]
