import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as reference_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vovnet.data.record import Record
from vovnet.detections import Detections
from vovnet.errors import DataError
from vovnet.evaluate import coco_ap
from vovnet.evaluate.coco import _annotations

NAMES = ("a", "b", "c", "d")
FIELDS = (
    *("map_50_95", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("ar_1", "ar_10", "ar_100"),
)  # in the order of pycocotools' stats

# pycocotools 2.0.11's mask.decode against NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def record(image_id, boxes, labels, **fields) -> Record:
    none = np.zeros(len(boxes), bool)
    return Record(
        path=Path(f"{image_id}.jpg"),
        image_id=image_id,
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(labels, np.int64),
        **{"difficult": none, "crowd": none, **fields},
    )


def random_boxes(rng, count) -> np.ndarray:
    corner = rng.uniform(0, 150, (count, 2))
    # Sides up to 200 reach all three of COCO's sizes.
    return np.concatenate((corner, corner + rng.uniform(2, 200, (count, 2))), 1).astype(np.float32)


def scene(seed: int, images: int = 12) -> tuple[list[Detections], list[Record]]:
    """Images with and without truth and detections, crowds, tied scores, ids out of order from 0.

    The last class has no truth; its detections must not count.
    """
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for image_id in rng.permutation(images).tolist():
        count = int(rng.integers(0, 12)) * int(rng.random() < 0.8)
        boxes = random_boxes(rng, count)
        truths.append(
            record(
                image_id,
                boxes,
                rng.integers(0, 3, count),
                crowd=rng.random(count) < 0.15,
                difficult=rng.random(count) < 0.1,
                areas=None if image_id % 2 else rng.uniform(10, 20000, count),
            )
        )
        chosen = rng.integers(0, count, 2 * count) if count else np.arange(0)
        near = boxes[chosen] + rng.normal(0, 4, (len(chosen), 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        stray = random_boxes(rng, int(rng.integers(0, 120)))
        scores = (rng.integers(3, 11, len(near)), rng.integers(0, 6, len(stray)))
        labels = (truths[-1].labels[chosen], rng.integers(0, 4, len(stray)))
        predictions.append(
            Detections(
                boxes=np.concatenate((near, stray)),
                scores=np.concatenate(scores) / 10,
                labels=np.concatenate(labels),
                names=NAMES,
            )
        )
    return predictions, truths


def reference(predictions, truths, iou_type="bbox") -> COCOeval:
    """pycocotools on dictionaries written here, from the records' fields."""
    annotations, results = [], []
    for found, truth in zip(predictions, truths, strict=True):
        for i, (x1, y1, x2, y2) in enumerate(truth.boxes.astype(float)):
            area = (x2 - x1) * (y2 - y1) if truth.areas is None else truth.areas[i]
            row = {"id": len(annotations) + 1, "image_id": truth.image_id}
            row |= {"category_id": int(truth.labels[i]) + 1, "area": float(area)}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            row |= {"iscrowd": int(truth.crowd[i] or truth.difficult[i])}
            if iou_type == "segm":
                row["segmentation"] = truth.segmentations[i]
            annotations.append(row)
        for i, (x1, y1, x2, y2) in enumerate(found.boxes.astype(float)):
            row = {"image_id": truth.image_id, "category_id": int(found.labels[i]) + 1}
            row |= {"score": float(found.scores[i])}
            if iou_type == "segm":
                row["segmentation"] = reference_mask.encode(np.asfortranarray(found.masks[i]))
            else:
                row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            results.append(row)
    gt = COCO()
    gt.dataset = {
        "info": {},
        "images": [{"id": t.image_id, **_size(t)} for t in truths],
        "categories": [{"id": i, "name": n} for i, n in enumerate(NAMES, 1)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        # loadRes cannot take an empty list.
        evaluation = COCOeval(gt, gt.loadRes(results) if results else COCO(), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _size(truth: Record) -> dict[str, int]:
    return {"height": truth.size[0], "width": truth.size[1]} if truth.size else {}


def mean_or_none(values):
    values = values[values > -1]
    return pytest.approx(values.mean(), abs=1e-6) if values.size else None


def assert_equal_to_reference(predictions, truths, iou_type="bbox") -> None:
    result = coco_ap(predictions, truths, NAMES, iou_type)
    expected = reference(predictions, truths, iou_type)
    for field, stat in zip(FIELDS, expected.stats, strict=False):
        assert vars(result)[field] == (pytest.approx(stat, abs=1e-6) if stat >= 0 else None), field
    precision = expected.eval["precision"][:, :, :, 0, 2]
    assert list(result.per_class) == list(NAMES)
    for i, row in enumerate(result.per_class.values()):
        assert row["map_50_95"] == mean_or_none(precision[:, :, i])
        assert row["map_50"] == mean_or_none(precision[0, :, i])
        counted = [(t.labels == i) & ~t.crowd & ~t.difficult for t in truths]
        assert row["count"] == sum(map(np.sum, counted))


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools(seed):
    assert_equal_to_reference(*scene(seed))


@pytest.mark.parametrize("found", [29, 35, 57, 70, 94, 100])
def test_recall_of_exactly_a_threshold_as_in_pycocotools(found):
    # Its thresholds are floats; that of 57 % lies above 57/100. Parity decides, not arithmetic.
    truths = [record(i, [[0, 0, 10, 10]], [0]) for i in range(100)]
    predictions = [perfect(t) if t.image_id < found else perfect(t)[:0] for t in truths]
    assert_equal_to_reference(predictions, truths)


def test_no_detections_at_all():
    predictions, truths = scene(3)
    nothing = [p[:0] for p in predictions]
    assert_equal_to_reference(nothing, truths)
    assert coco_ap(nothing, truths, NAMES).map_50_95 == 0


def test_no_truth_at_all():
    predictions, truths = scene(4)
    empty = [record(t.image_id, [], []) for t in truths]
    assert_equal_to_reference(predictions, empty)
    result = coco_ap(predictions, empty, NAMES)
    assert result.map_50_95 is None
    assert result.per_class["a"] == {"map_50_95": None, "map_50": None, "count": 0}


def test_no_images_at_all():
    assert coco_ap([], [], NAMES).map_50 is None


def perfect(truth: Record) -> Detections:
    return Detections(truth.boxes, np.ones(len(truth.boxes)), truth.labels, NAMES)


def test_the_first_annotation_of_image_zero_matches():
    # pycocotools stores the id of the matched annotation and takes 0 for "no match": AP 0.
    truth = record(0, [[0, 0, 10, 10]], [0])
    assert [row["id"] for row in _annotations([truth, truth], "bbox")] == [1, 2]
    assert coco_ap([perfect(truth)], [truth], NAMES).map_50_95 == pytest.approx(1)


def test_a_detection_inside_a_difficult_box_is_not_held_against_the_model():
    truth = record(
        1, [[0, 0, 100, 100], [200, 0, 220, 20]], [0, 0], difficult=np.array([True, False])
    )
    inside = Detections([[10, 10, 20, 20]], [0.9], [0], NAMES)
    both = Detections([[10, 10, 20, 20], [200, 0, 220, 20]], [0.9, 0.8], [0, 0], NAMES)
    assert coco_ap([inside], [truth], NAMES).map_50 == 0
    assert coco_ap([both], [truth], NAMES).map_50 == pytest.approx(1)
    assert coco_ap([both], [truth], NAMES).per_class["a"]["count"] == 1


def test_bad_input():
    truth = record(1, [[0, 0, 10, 10]], [0], size=(20, 20))
    with pytest.raises(ValueError, match="0 predictions for 1 images"):
        coco_ap([], [truth], NAMES)
    with pytest.raises(ValueError, match="unique"):
        coco_ap([perfect(truth)] * 2, [truth] * 2, NAMES)
    with pytest.raises(ValueError, match="no masks"):
        coco_ap([perfect(truth)], [truth], NAMES, "segm")
    with pytest.raises(ValueError, match="every box needs a segmentation"):
        coco_ap([perfect(truth)[:0]], [truth], NAMES, "segm")
    sizeless = record(1, [[0, 0, 9, 9]], [0], segmentations=([[0, 0, 9, 0, 9, 9]],))
    with pytest.raises(ValueError, match="size"):
        coco_ap([perfect(truth)[:0]], [sizeless], NAMES, "segm")


def mask_scene(seed: int) -> tuple[list[Detections], list[Record]]:
    """Random triangles as polygons, one uncompressed RLE crowd an image; noisy masks."""
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for image_id in range(6):
        polygons = rng.uniform(0, 60, (3, 6)).round(2)
        crowd = (rng.random((64, 64)) < 0.5).astype(np.uint8)
        runs = np.diff(np.flatnonzero(np.diff(crowd.T.ravel(), prepend=0, append=2)), prepend=0)
        segmentations = (
            *([p.tolist()] for p in polygons),
            {"size": [64, 64], "counts": runs.tolist()},
        )
        rles = [
            reference_mask.merge(reference_mask.frPyObjects(s, 64, 64)) for s in segmentations[:3]
        ]
        rles.append(reference_mask.frPyObjects(segmentations[3], 64, 64))
        masks = np.stack([reference_mask.decode(r).astype(bool) for r in rles])
        masks = np.concatenate((masks, masks ^ (rng.random(masks.shape) < 0.05)))
        truths.append(
            record(
                image_id,
                np.tile([0, 0, 64, 64], (4, 1)),
                [0, 1, 2, 0],
                crowd=np.array([False, False, False, True]),
                size=(64, 64),
                areas=np.array([float(reference_mask.area(r)) for r in rles]),
                segmentations=segmentations,
            )
        )
        predictions.append(
            Detections(
                boxes=np.tile([0, 0, 64, 64], (8, 1)),
                scores=rng.integers(0, 5, 8) / 5,
                labels=[0, 1, 2, 0] * 2,
                names=NAMES,
                masks=masks,
            )
        )
    return predictions, truths


@pytest.mark.parametrize("seed", range(3))
def test_masks_equal_pycocotools(seed):
    assert_equal_to_reference(*mask_scene(seed), "segm")


def test_masks_are_ranked_by_their_own_scores():
    """A whole and an empty mask of one object: which of them comes first decides."""
    box = [[0, 0, 64, 64]]
    outline = [[0, 0, 64, 0, 64, 64, 0, 64]]
    truth = record(0, box, [0], size=(64, 64), segmentations=(outline,))
    whole, none = np.ones((64, 64), bool), np.zeros((64, 64), bool)
    found = Detections(box * 2, [0.9, 0.8], [0, 0], NAMES, masks=np.stack([none, whole]))
    by_box = coco_ap([found], [truth], NAMES, "segm").map_50
    by_mask = replace(found, mask_scores=[0.1, 0.7])
    assert by_box == pytest.approx(0.5)
    assert coco_ap([by_mask], [truth], NAMES, "segm").map_50 == pytest.approx(1.0)


def test_what_has_no_mask_is_ignored():
    predictions, truths = mask_scene(3)
    first = truths[0]
    bare = replace(first, segmentations=([], *first.segmentations[1:]))
    ignored = record(
        first.image_id, first.boxes, first.labels, crowd=first.crowd | (np.arange(4) == 0),
        size=first.size, areas=first.areas,
        segmentations=([[0, 0, 64, 0, 64, 64, 0, 64]], *first.segmentations[1:]),
    )  # fmt: skip
    one, other = (coco_ap(predictions, [t, *truths[1:]], NAMES, "segm") for t in (bare, ignored))
    assert one == other != coco_ap(predictions, truths, NAMES, "segm")


def test_a_mask_that_cannot_be_read_is_named():
    predictions, truths = mask_scene(3)
    broken = replace(truths[0], segmentations=("text", *truths[0].segmentations[1:]))
    with pytest.raises(DataError, match="a segmentation cannot be read"):
        coco_ap(predictions, [broken, *truths[1:]], NAMES, "segm")


def test_areas_of_masks_are_the_default():
    predictions, truths = mask_scene(7)
    bare = [
        record(t.image_id, t.boxes, t.labels, crowd=t.crowd, size=t.size,
               segmentations=t.segmentations) for t in truths
    ]  # fmt: skip
    assert coco_ap(predictions, bare, NAMES, "segm") == coco_ap(predictions, truths, NAMES, "segm")
