"""Average precision as COCO defines it, computed in memory by hotcoco (pycocotools' numbers)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from vovnet.data.mask_code import encode_mask
from vovnet.data.record import Record
from vovnet.detections import Detections
from vovnet.errors import DataError

if TYPE_CHECKING:
    from hotcoco import COCOeval

IouType = Literal["bbox", "segm"]


class ClassAP(TypedDict):
    """One class: AP (None without counted truth) and the number of truths that count."""

    map_50_95: float | None
    map_50: float | None
    count: int


@dataclass(frozen=True)
class CocoResult:
    """COCO's numbers, 0..1; None where there is no truth to measure on (COCO prints -1).

    `map_*` are means over classes with at most 100 detections of a class in an image; small is an
    area below 32², large above 96² pixels. `ar_k` is the average recall with at most k of a class.
    """

    map_50_95: float | None
    map_50: float | None
    map_75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    per_class: dict[str, ClassAP]


def coco_ap(
    predictions: Sequence[Detections],
    truths: Sequence[Record],
    names: Sequence[str],
    iou_type: IouType = "bbox",
) -> CocoResult:
    """COCO AP of the detections in a list of images; `predictions[i]` belongs to `truths[i]`.

    A VOC `difficult` truth is given to COCO as `iscrowd`, the only truth that COCO ignores: it is
    not counted in recall, and a detection whose intersection with it is at least the threshold
    times *the detection's own* area (not the union) is ignored, any number of them, unless the
    detection matches a counted truth. So what lies mostly inside a difficult box is not held
    against the model. `truths[i].areas` set the size ranges; without them it is the box's area
    ("segm": the mask's).

    "segm" compares `Detections.masks`, ranked by `mask_scores` where there are some, with
    `Record.segmentations`, and needs `Record.size`. A truth whose segmentation is empty is ignored
    like a difficult one, its mask being its box.

    Raises ValueError if the sequences differ in length, image ids repeat, or masks are missing;
    `DataError` for a segmentation that cannot be read.
    """
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} predictions for {len(truths)} images")
    results = [
        row
        for found, truth in zip(predictions, truths, strict=True)
        for row in coco_rows(found, truth, iou_type)
    ]
    return coco_ap_of_rows(results, truths, names, iou_type)


def coco_rows(found: Detections, truth: Record, iou_type: IouType) -> list[dict[str, Any]]:
    """The detections of one image as COCO results, masks as small RLE; category ids from 1.

    Raises ValueError if masks are asked for and missing.
    """
    if iou_type == "bbox":
        return replace(found, masks=None).to_coco(truth.image_id)
    if len(found) and found.masks is None:
        raise ValueError(f"image {truth.image_id}: the detections have no masks")
    scores = found.scores if found.mask_scores is None else found.mask_scores
    rows = replace(found, scores=scores).to_coco(truth.image_id)
    # A result that has a box takes the box's area, not the mask's, for the size ranges.
    return [{k: v for k, v in row.items() if k != "bbox"} for row in rows]


def coco_ap_of_rows(
    results: Sequence[dict[str, Any]],
    truths: Sequence[Record],
    names: Sequence[str],
    iou_type: IouType = "bbox",
) -> CocoResult:
    """`coco_ap` of results that are COCO rows already: see `coco_rows`."""
    return coco_judged(results, truths, names, iou_type)[1]


def coco_judged(
    results: Sequence[dict[str, Any]],
    truths: Sequence[Record],
    names: Sequence[str],
    iou_type: IouType = "bbox",
) -> tuple["COCOeval", CocoResult]:
    """`coco_ap_of_rows`, and hotcoco's own object, which knows more than AP.

    In it detections are numbered from 1 in the order of `results`, objects in that of `truths`;
    category ids are labels + 1.
    """
    from hotcoco import COCO, COCOeval

    if len({t.image_id for t in truths}) != len(truths):
        raise ValueError("image ids must be unique")
    if iou_type == "segm":
        _check_masks(truths)
    annotations = _annotations(truths, iou_type)
    gt = COCO(
        {
            "images": [_image(t) for t in truths],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
            "annotations": annotations,
        }
    )
    evaluation = COCOeval(gt, gt.load_res(list(results)), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    counts = np.zeros(len(names) + 1, np.int64)
    for annotation in annotations:
        counts[annotation["category_id"]] += not annotation["iscrowd"]
    assert evaluation.eval is not None  # accumulate() has filled it
    return evaluation, _summary(evaluation.eval, names, counts[1:])


def _image(truth: Record) -> dict[str, int]:
    if truth.size is None:
        return {"id": truth.image_id}
    return {"id": truth.image_id, "height": truth.size[0], "width": truth.size[1]}


def _annotations(truths: Sequence[Record], iou_type: IouType) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for truth in truths:
        corners = truth.boxes.astype(np.float64)
        sides = corners[:, 2:] - corners[:, :2]
        boxes = np.concatenate((corners[:, :2], sides), 1).tolist()
        areas = sides.prod(1) if truth.areas is None else truth.areas
        ignored = truth.difficult | truth.crowd
        for i, box in enumerate(boxes):
            row = {
                # From 1: pycocotools takes a match with id 0 for no match (hotcoco does not).
                "id": len(rows) + 1,
                "image_id": truth.image_id,
                "category_id": int(truth.labels[i]) + 1,
                "bbox": box,
                "area": float(areas[i]),
                "iscrowd": int(ignored[i]),
            }
            if iou_type == "segm":
                drawn = truth.segmentations[i]
                if not drawn:
                    row["iscrowd"], drawn = 1, [_outline(corners[i])]
                row["segmentation"], area = _rle(drawn, truth)
                if truth.areas is None:
                    row["area"] = area
            rows.append(row)
    return rows


def _outline(box: np.ndarray) -> list[float]:
    """A box as a polygon."""
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _rle(segmentation: Any, truth: Record) -> tuple[dict[str, Any], float]:
    """A COCO segmentation (polygons or RLE) as one compressed RLE, and its area in pixels."""
    from hotcoco import mask

    if truth.size is None:
        raise ValueError("segm needs the size of every image")
    try:
        rle = encode_mask(segmentation, truth.size)
    except DataError as error:
        raise DataError(f"{truth.path}: {error}") from None
    return rle, float(mask.area(rle))


def _check_masks(truths: Sequence[Record]) -> None:
    for truth in truths:
        if len(truth.segmentations) != len(truth.boxes):
            raise ValueError(f"image {truth.image_id}: every box needs a segmentation")


def _mean(values: np.ndarray) -> float | None:
    """The mean of what was measured; COCO marks the rest with -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _summary(result: dict[str, Any], names: Sequence[str], counts: np.ndarray) -> CocoResult:
    # IoU .50:.05:.95 × recall × class × area (all, small, medium, large) × detections (1, 10, 100).
    precision, recall = np.asarray(result["precision"]), np.asarray(result["recall"])
    full = precision[:, :, :, 0, 2]
    return CocoResult(
        map_50_95=_mean(full),
        map_50=_mean(full[0]),
        map_75=_mean(full[5]),
        map_small=_mean(precision[:, :, :, 1, 2]),
        map_medium=_mean(precision[:, :, :, 2, 2]),
        map_large=_mean(precision[:, :, :, 3, 2]),
        ar_1=_mean(recall[:, :, 0, 0]),
        ar_10=_mean(recall[:, :, 0, 1]),
        ar_100=_mean(recall[:, :, 0, 2]),
        per_class={
            name: {
                "map_50_95": _mean(full[:, :, i]),
                "map_50": _mean(full[0, :, i]),
                "count": int(counts[i]),
            }
            for i, name in enumerate(names)
        },
    )
