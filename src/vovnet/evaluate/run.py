"""A detector's accuracy on a dataset: run every image, compare with the truth."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from vovnet.data.record import Dataset, Record
from vovnet.detect.pictures import Picture
from vovnet.detect.run import AnyDetector
from vovnet.detections import Detections
from vovnet.errors import DataError
from vovnet.evaluate.coco import coco_ap, coco_ap_of_rows, coco_rows
from vovnet.evaluate.voc import voc_ap
from vovnet.images import open_image

# Accuracy is an area over all thresholds: keep what `predict` would not show.
EVAL_CONF = 0.001
EVAL_IOU = 0.6

FoundHook = Callable[[list[Detections]], None]


def detect_records(
    detector: AnyDetector,
    records: Iterable[Record],
    *,
    batch: int = 8,
    conf: float = EVAL_CONF,
    iou: float = EVAL_IOU,
    on_images: Callable[[int], None] | None = None,
) -> Iterator[Detections]:
    """Yield every record's detections, in order; `on_images` hears of each batch's length.

    The next batch is decoded while the network works on this one.
    """
    remaining = iter(records)
    side = max(detector.input_spec.size)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_load, remaining, batch, side)
        while opened := coming.result():
            coming = pool.submit(_load, remaining, batch, side)
            yield from detector.detect(opened, conf, iou)
            if on_images:
                on_images(len(opened))


def _load(records: Iterable[Record], count: int, side: int) -> list[Picture]:
    chosen = itertools.islice(records, count)
    return [Picture(*open_image(record.path, shrink_to=side)) for record in chosen]


class Seen(NamedTuple):
    """What an image has come to: its place in the dataset, boxes, and masks as COCO rows."""

    index: int
    found: Detections
    mask_rows: list[dict[str, Any]]


def check_names(detector: AnyDetector, dataset: Dataset) -> None:
    """Raise `DataError` if the dataset's classes are not the detector's."""
    if dataset.names != detector.names:
        raise DataError(
            f"{dataset.root}: classes {', '.join(dataset.names)} are not the model's: "
            f"{', '.join(detector.names)}; give other weights or other data"
        )


def evaluate(
    detector: AnyDetector,
    dataset: Dataset,
    *,
    batch: int = 8,
    conf: float = EVAL_CONF,
    iou: float = EVAL_IOU,
    on_images: Callable[[int], None] | None = None,
    on_found: FoundHook | None = None,
) -> dict[str, Any]:
    """COCO AP, VOC07 11-point AP and VOC area AP at IoU 0.5, overall and per class, 0..1.

    A detector that draws masks has "mask_map_50", "mask_map_50_95" and "mask_map_75" too. A figure
    that has no truth to stand on is None. `on_found` gets all that was found, but for masks. Raises
    `DataError` if the dataset's classes are not the detector's.
    """
    check_names(detector, dataset)
    every = range(len(dataset))
    seen = see(detector, dataset, every, batch=batch, conf=conf, iou=iou, on_images=on_images)
    if on_found is not None:
        on_found([one.found for one in seen])
    return metrics_of(seen, dataset, detector.masks)


def see(
    detector: AnyDetector,
    dataset: Dataset,
    indices: Sequence[int],
    *,
    batch: int = 8,
    conf: float = EVAL_CONF,
    iou: float = EVAL_IOU,
    on_images: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Seen]:
    """What the images of those indices come to; fewer of them once `stop`, asked after every one,
    says so."""
    records = [dataset.records[i] for i in indices]
    batch = 1 if detector.masks else batch  # whole-image masks of several would fill the memory
    stream = detect_records(detector, records, batch=batch, conf=conf, iou=iou, on_images=on_images)
    seen = []
    for index, record, one in zip(indices, records, stream, strict=True):
        # Whole-image masks of a data set would fill the memory.
        rows = coco_rows(one, record, "segm") if detector.masks else []
        seen.append(Seen(index, replace(one, masks=None), rows))
        if stop is not None and stop():
            break
    return seen


def metrics_of(seen: Sequence[Seen], dataset: Dataset, masks: bool) -> dict[str, Any]:
    """The figures of a whole data set's images."""
    found = [one.found for one in seen]
    coco = coco_ap(found, dataset.records, dataset.names)
    voc07 = voc_ap(found, dataset.records, len(dataset.names), use_07_metric=True)
    area = voc_ap(found, dataset.records, len(dataset.names), use_07_metric=False)
    mask_rows = [row for one in seen for row in one.mask_rows]
    return {
        "map_50": coco.map_50,
        "map_50_95": coco.map_50_95,
        "map_75": coco.map_75,
        "map_small": coco.map_small,
        "map_medium": coco.map_medium,
        "map_large": coco.map_large,
        "ar_100": coco.ar_100,
        "voc07_ap": _number(voc07.mean),
        "voc_area_ap": _number(area.mean),
        **(_mask_metrics(mask_rows, dataset) if masks else {}),
        "images": len(dataset),
        "per_class": coco.per_class,
    }


def _mask_metrics(rows: list[dict[str, Any]], dataset: Dataset) -> dict[str, float | None]:
    if not any(any(record.segmentations) for record in dataset.records):  # nothing to measure on
        return dict.fromkeys(("mask_map_50", "mask_map_50_95", "mask_map_75"))
    # Objects without a mask are ignored.
    truths = [
        record if record.segmentations else replace(record, segmentations=([],) * len(record.boxes))
        for record in dataset.records
    ]
    masks = coco_ap_of_rows(rows, truths, dataset.names, "segm")
    return {
        "mask_map_50": masks.map_50,
        "mask_map_50_95": masks.map_50_95,
        "mask_map_75": masks.map_75,
    }


def _number(value: float) -> float | None:
    """NaN (no truth) as None, which JSON knows."""
    return None if value != value else float(value)
