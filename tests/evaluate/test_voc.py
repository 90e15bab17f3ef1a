from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vovnet.data.record import Record
from vovnet.detections import Detections
from vovnet.evaluate import average_precision, voc_ap

NAMES = ("a", "b", "c")
BOX, FAR, NEAR = (0, 0, 10, 10), (50, 50, 60, 60), (0, 0, 10, 9)


def truth(*rows, difficult=(), crowd=()) -> Record:
    """One image's truth from rows (label, box); `difficult` and `crowd` hold row numbers."""
    indices = np.arange(len(rows))
    return Record(
        path=Path("x.jpg"),
        image_id=0,
        boxes=np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        labels=np.array([label for label, _ in rows], np.int64),
        difficult=np.isin(indices, difficult),
        crowd=np.isin(indices, crowd),
    )


def found(*rows) -> Detections:
    """One image's detections from rows (label, score, box)."""
    return Detections(
        boxes=np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows]),
        labels=np.array([label for label, *_ in rows]),
        names=NAMES,
    )


def area_ap(predictions, truths) -> list[float]:
    return voc_ap(predictions, truths, 3, use_07_metric=False).per_class.tolist()


def test_perfect_and_without_truth():
    result = voc_ap([found((0, 0.9, BOX), (1, 0.9, BOX))], [truth((0, BOX))], 3)
    np.testing.assert_array_equal(result.per_class, [1, np.nan, np.nan])
    assert result.mean == 1


def test_no_detections_is_zero_and_no_truth_is_nan():
    result = voc_ap([found()], [truth((0, BOX), (2, BOX))], 3)
    np.testing.assert_array_equal(result.per_class, [0, np.nan, 0])
    assert result.mean == 0
    for records in ([], [truth()], [truth((0, BOX), difficult=[0])]):
        nothing = voc_ap([found((0, 1, BOX))] * len(records), records, 3)
        assert np.isnan(nothing.per_class).all()
        assert np.isnan(nothing.mean)


def test_second_detection_of_a_truth_is_false():
    # Score order: true, false, true of 2: recall .5 at precision 1, recall 1 at precision 2/3.
    predictions = [found((0, 0.9, BOX), (0, 0.8, NEAR), (0, 0.7, FAR))]
    truths = [truth((0, BOX), (0, FAR))]
    assert area_ap(predictions, truths)[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert voc_ap(predictions, truths, 3).per_class[0] == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_only_the_best_overlap_counts():
    # Both detections overlap BOX most. COCO would give the second one the free truth NEAR, VOC
    # calls it false.
    predictions = [found((0, 0.9, BOX), (0, 0.8, BOX))]
    assert area_ap(predictions, [truth((0, BOX), (0, NEAR))])[0] == pytest.approx(0.5)


def test_difficult_is_neither_true_nor_false():
    records = [truth((0, BOX), (0, FAR), difficult=[0])]
    assert area_ap([found((0, 0.9, BOX), (0, 0.8, NEAR), (0, 0.7, FAR))], records)[0] == 1
    # The best overlap is a difficult box: ignored, though it would match the plain one too.
    records = [truth((0, BOX), (0, NEAR), difficult=[0])]
    assert area_ap([found((0, 0.9, BOX))], records)[0] == 0


def test_crowd_is_treated_as_difficult():
    # Two see the crowd: were it counted, the second would be false, and the third true after it.
    records = [truth((0, BOX), (0, FAR), crowd=[0])]
    assert area_ap([found((0, 0.9, BOX), (0, 0.8, NEAR), (0, 0.7, FAR))], records)[0] == 1


def test_false_positives_in_an_empty_image():
    predictions = [found((0, 0.9, BOX)), found((0, 0.8, BOX))]
    assert area_ap(predictions, [truth(), truth((0, BOX))])[0] == pytest.approx(0.5)


def test_other_class_does_not_match():
    assert area_ap([found((1, 0.9, BOX))], [truth((0, BOX))])[0] == 0


def test_overlap_equal_to_the_threshold_is_true():
    half = found((0, 0.9, (0, 0, 10, 5)))
    assert area_ap([half], [truth((0, BOX))])[0] == 1
    less = found((0, 0.9, (0, 0, 10, 4.99)))
    assert area_ap([less], [truth((0, BOX))])[0] == 0


def test_ties_keep_the_order_of_images():
    miss, hit = found((0, 0.5, FAR)), found((0, 0.5, BOX))
    records = [truth((0, BOX)), truth((0, BOX))]
    assert area_ap([hit, miss], records)[0] == pytest.approx(0.5)
    assert area_ap([miss, hit], records)[0] == pytest.approx(0.25)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="0 predictions for 1 images"):
        voc_ap([], [truth()], 3)


def plain_ap(predictions, records, label, use_07_metric):
    """The devkit's procedure, one detection and one box at a time, on inclusive corners."""
    ranked = []
    for image, p in enumerate(predictions):
        for box, score, own in zip(p.boxes, p.scores, p.labels, strict=True):
            if own == label:
                ranked.append((float(score), image, box.astype(int).tolist()))
    ranked.sort(key=lambda row: -row[0])
    taken = [[False] * len(r.boxes) for r in records]
    positives = sum(
        int(own == label and not difficult)
        for r in records
        for own, difficult in zip(r.labels, r.difficult, strict=True)
    )
    if positives == 0:
        return None
    true = false = 0
    points = []
    for _, image, (x1, y1, x2, y2) in ranked:
        best, at = -1.0, -1
        for j, box in enumerate(records[image].boxes.astype(int).tolist()):
            if records[image].labels[j] != label:
                continue
            # Inclusive pixels: the first corner is one more than the continuous one.
            width = min(x2, box[2]) - (max(x1, box[0]) + 1) + 1
            height = min(y2, box[3]) - (max(y1, box[1]) + 1) + 1
            if width > 0 and height > 0:
                own = (x2 - x1) * (y2 - y1)
                overlap = (
                    width * height / (own + (box[2] - box[0]) * (box[3] - box[1]) - width * height)
                )
                if overlap > best:
                    best, at = overlap, j
        if best >= 0.5:
            if records[image].difficult[at]:
                pass
            elif taken[image][at]:
                false += 1
            else:
                taken[image][at] = True
                true += 1
        else:
            false += 1
        if true + false:
            points.append((Fraction(true, positives), true / (true + false)))
    if use_07_metric:
        grid = [Fraction(k, 10) for k in range(11)]
        return sum(max((p for r, p in points if r >= t), default=0) for t in grid) / 11
    area = previous = 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - previous) * max(p for _, p in points[i:])
        previous = recall
    return area


@st.composite
def scenes(draw):
    corner = st.integers(0, 6)
    box = st.tuples(corner, corner, st.integers(1, 6), st.integers(1, 6)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    )
    label = st.integers(0, 2)
    records, predictions = [], []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(label, box), max_size=5))
        difficult = draw(st.lists(st.integers(0, 4), max_size=2))
        records.append(truth(*rows, difficult=difficult))
        score = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
        predictions.append(found(*draw(st.lists(st.tuples(label, score, box), max_size=8))))
    return predictions, records


@pytest.mark.parametrize("use_07_metric", [True, False])
@settings(deadline=None, max_examples=300)
@given(scenes())
def test_equals_a_plain_loop(use_07_metric, scene):
    result = voc_ap(*scene, 3, use_07_metric=use_07_metric)
    for label, ap in enumerate(result.per_class):
        expected = plain_ap(*scene, label, use_07_metric)
        if expected is None:
            assert np.isnan(ap)
        else:
            assert ap == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10))
def test_eleven_points_equal_hotcoco(matched, missed):
    from hotcoco import metrics

    positives = sum(matched) + missed
    if positives == 0:
        return
    # Just below, so that hotcoco's comparison of floats cannot lose a point it has reached.
    thresholds = np.linspace(0, 1, 11) - 1e-9
    expected = metrics.average_precision(
        np.linspace(1, 0, len(matched)), np.array(matched, bool), positives, rec_thrs=thresholds
    )
    counted = np.arange(1, len(matched) + 1)
    ap = average_precision(np.cumsum(matched), counted, positives)
    assert ap == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("positives", [10, 20, 30, 70, 90, 1000])
@pytest.mark.parametrize("tenths", range(11))
def test_recall_of_exactly_a_threshold_reaches_it(positives, tenths):
    # k/10 of the truths found, nothing else: precision 1 at the k + 1 recalls up to k/10, 0 above.
    true = np.arange(1, positives * tenths // 10 + 1)
    expected = (tenths + 1) / 11 if tenths else 0
    assert average_precision(true, true, positives) == pytest.approx(expected, abs=1e-12)
    assert average_precision(true, true, positives, False) == pytest.approx(tenths / 10)
    # One truth fewer misses the threshold.
    if tenths:
        less = average_precision(true[:-1], true[:-1], positives)
        assert less == pytest.approx(tenths / 11 if len(true) > 1 else 0, abs=1e-12)
