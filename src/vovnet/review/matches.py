"""Which detection found which object, once for all figures: COCO's matching at an IoU of 0.5."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vovnet.data.record import Record
from vovnet.detections import Detections
from vovnet.evaluate.coco import CocoResult, coco_judged, coco_rows
from vovnet.evaluate.run import EVAL_CONF

if TYPE_CHECKING:
    from hotcoco import COCOeval


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections and objects of all images, one after the other; crowds and difficult objects, and
    what lies on them, are left out, and so is what exceeds 100 detections of a class in an image.

    Detections: `image` (place in the data set), `row` (place in that image), `label`, `score`, and
    whether it is a `hit`. Objects: `object_image`, `object_row`, `object_label`, `object_side`
    (root of the area in pixels) and `object_score`, that of the detection that found it, -1 where
    none did.

    Since better scores are matched first, what happens above a confidence is the same whether the
    detections below it are there or not: these arrays answer for all confidences.
    """

    image: np.ndarray
    row: np.ndarray
    label: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    object_image: np.ndarray
    object_row: np.ndarray
    object_label: np.ndarray
    object_side: np.ndarray
    object_score: np.ndarray


@dataclass(frozen=True, eq=False)
class Judged:
    """Detections, all those with scores above `least`, beside the truth: hotcoco's evaluation,
    COCO's figures and the matches."""

    found: Sequence[Detections]
    records: Sequence[Record]
    names: tuple[str, ...]
    least: float
    evaluation: "COCOeval"
    coco: CocoResult
    matches: Matches

    def above(self, conf: float) -> "COCOeval":
        """The evaluation of the detections that count and score above `conf` alone: hotcoco's
        confusion and kinds of mistakes take what lies on a crowd for false."""
        ends = np.searchsorted(self.matches.image, np.arange(1, len(self.found)))
        rows = np.split(self.matches.row, ends)
        counted = [one[own] for one, own in zip(self.found, rows, strict=True)]
        shown = [one[one.scores > np.float32(conf)] for one in counted]
        return coco_judged(_rows(shown, self.records), self.records, self.names)[0]


def judged(
    found: Sequence[Detections],
    records: Sequence[Record],
    names: Sequence[str],
    least: float = EVAL_CONF,
) -> Judged:
    """Boxes of a whole data set beside its records; `found[i]` belongs to `records[i]`."""
    evaluation, coco = coco_judged(_rows(found, records), records, names)
    matches = _matches(evaluation, found, records)
    return Judged(found, records, tuple(names), least, evaluation, coco, matches)


def _rows(found: Sequence[Detections], records: Sequence[Record]) -> list[dict[str, Any]]:
    pairs = zip(found, records, strict=True)
    return [row for one, record in pairs for row in coco_rows(one, record, "bbox")]


def _matches(
    evaluation: "COCOeval", found: Sequence[Detections], records: Sequence[Record]
) -> Matches:
    told = evaluation.image_diagnostics(iou_thr=0.5)
    image, row = _places([len(one) for one in found])
    label = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in found)])
    score = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)])
    hit = np.zeros(len(score), bool)
    counted = np.zeros(len(score), bool)
    for number, status in told["dt_status"].items():
        counted[number - 1], hit[number - 1] = True, status == "tp"
    object_image, object_row = _places([len(record.boxes) for record in records])
    object_label = np.concatenate([np.zeros(0, np.int64), *(r.labels for r in records)])
    side = np.sqrt(np.concatenate([np.zeros(0), *map(_areas, records)]))
    wanted = np.zeros(len(side), bool)
    wanted[[number - 1 for number in told["gt_status"]]] = True
    by = np.full(len(side), -1.0, np.float32)
    for number, detection in told["gt_match"].items():
        by[number - 1] = score[detection - 1]
    return Matches(
        *(column[counted] for column in (image, row, label, score, hit)),
        *(c[wanted] for c in (object_image, object_row, object_label, side, by)),
    )


def _places(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of so many things in each image, one after the other: the image, and the place in it."""
    image = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)])
    return image, row


def _areas(record: Record) -> np.ndarray:
    if record.areas is not None:
        return record.areas
    return (record.boxes[:, 2:].astype(float) - record.boxes[:, :2]).prod(1)
