"""The numbers behind the figures: counted by hand, by pycocotools, and for any scene at all."""

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vovnet.detections import Detections
from vovnet.evaluate.coco import _annotations, coco_rows
from vovnet.review.calibration import calibration
from vovnet.review.choosing import choose
from vovnet.review.confidence import Curve, by_class, confidences, overall
from vovnet.review.confusion import BACKGROUND, OTHERS, Confusion, confusion, mix_ups, shortened
from vovnet.review.errors import error_kinds
from vovnet.review.matches import Judged, judged
from vovnet.review.sizes import by_size

from .conftest import box, found, record, scenes

NAMES = ("a", "b")


@pytest.fixture
def scene() -> Judged:
    """Of "a": one found, one found twice, one missed, one difficult and found. Of "b": one taken
    for an "a"; and one detection where nothing is."""
    one = record(1, [(box(0, 0), 0), (box(40, 0), 0), (box(80, 0), 0), (box(0, 60), 0)],
                 difficult=[False, False, False, True])  # fmt: skip
    two = record(2, [(box(50, 50, 40), 1)])
    first = [(box(0, 0), 0, 0.92), (box(40, 0), 0, 0.82), (box(41, 0), 0, 0.72)]
    first += [(box(0, 60), 0, 0.62)]
    second = [(box(50, 50, 40), 0, 0.52), (box(0, 0), 1, 0.32)]
    return judged([found(first, NAMES), found(second, NAMES)], [one, two], NAMES)


def test_what_was_found_by_what(scene):
    matches = scene.matches
    assert matches.hit.tolist() == [True, True, False, False, False]  # the difficult one counts not
    assert matches.score.tolist() == pytest.approx([0.92, 0.82, 0.72, 0.52, 0.32])
    assert (matches.image.tolist(), matches.row.tolist()) == ([0, 0, 0, 1, 1], [0, 1, 2, 0, 1])
    assert matches.object_score.tolist() == pytest.approx([0.92, 0.82, -1, -1])
    assert (matches.object_row.tolist(), matches.object_side.tolist()) == (
        [0, 1, 2, 0],
        [20, 20, 20, 40],
    )


def test_precision_recall_and_f1_by_hand(scene):
    together = overall(scene.matches, 0.001)
    assert together.count == 4
    at = {round(float(c), 2): i for i, c in enumerate(together.conf)}
    for conf, shown, right in ((0.01, 5, 2), (0.4, 4, 2), (0.55, 3, 2), (0.75, 2, 2), (0.85, 1, 1)):
        assert together.precision[at[conf]] == right / shown
        assert together.recall[at[conf]] == right / 4
        assert together.f1[at[conf]] == pytest.approx(2 * right / (shown + 4))
    assert math.isnan(together.precision[at[0.95]])
    assert together.f1[at[0.95]] == 0
    best = together.best  # anywhere from 0.72 to 0.81
    assert (best.conf, best.precision, best.recall) == (0.76, 1.0, 0.5)
    a, b = by_class(scene.matches, NAMES, 0.001)
    assert (a.count, a.best.f1, b.count, b.best.conf) == (3, pytest.approx(0.8), 1, None)


def test_a_score_that_is_the_confidence_is_not_shown():
    one = judged([found([(box(0, 0), 0, 0.5)], NAMES)], [record(1, [(box(0, 0), 0)])], NAMES)
    curve = overall(one.matches, 0.001)
    assert curve.recall[(curve.conf >= 0.5)].sum() == 0
    assert curve.recall[curve.conf < 0.5].min() == 1


def test_confidences_begin_where_scores_are_known():
    assert confidences(0.001)[0] == 0.01
    assert confidences(0.3).tolist()[:2] == [0.3, 0.31]
    assert confidences(0.301)[0] == 0.31
    assert confidences(1.0).tolist() == [0.99]
    curve = Curve("x", 1, confidences(0.98), *(np.array(v) for v in ([1, 1.0], [1, 1.0], [1, 1.0])))
    assert curve.best.conf == 0.98


def test_confusion_by_hand(scene):
    matrix = confusion(scene.above(0.01), NAMES)
    assert matrix.names == ("a", "b", BACKGROUND)
    assert matrix.counts.tolist() == [[2, 0, 1], [1, 0, 0], [1, 1, 0]]
    assert confusion(scene.above(0.75), NAMES).counts.tolist() == [[2, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert mix_ups(matrix.counts, NAMES) == [("b", "a", 1)]


def test_many_classes_are_shown_as_those_with_most_mistakes():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (81, 81))
    counts[7, 9] = 500
    small = shortened(Confusion((*(f"c{i}" for i in range(80)), BACKGROUND), counts), 15)
    assert small.counts.shape == (16, 16)
    assert small.names[-2:] == (OTHERS, BACKGROUND)
    assert small.counts.sum() == counts.sum()
    assert small.left_out == 66
    assert small.counts[small.names.index("c7"), small.names.index("c9")] == 500
    np.testing.assert_array_equal(small.counts[-1].sum(), counts[-1].sum())


def test_kinds_of_mistakes_by_hand(scene):
    kinds = {kind.name: kind for kind in error_kinds(scene.above(0), scene.above(0.4))}
    counts = {name: kind.count for name, kind in kinds.items()}
    assert counts == {"missed": 1, "nothing there": 0, "wrong class": 1, "poor box": 0,
                      "wrong class, poor box": 0, "found twice": 1}  # fmt: skip
    # Named rightly, the "b" would be found: AP from (2/3 + 0) / 2 to (2/3 + 1) / 2, nearly.
    assert kinds["wrong class"].cost == pytest.approx(0.5, abs=0.01)


def test_sizes_by_hand(scene):
    bins = by_size(scene.matches, 0.85)
    assert [(one.name, one.objects, one.found) for one in bins] == [
        ("16 to 32 px", 3, 1),
        ("32 to 64 px", 1, 0),
    ]


def test_calibration_by_hand(scene):
    bins = {one.low: (one.count, one.right) for one in calibration(scene.evaluation)}
    assert {round(low, 1): v for low, v in bins.items()} == {
        0.3: (1, 0.0), 0.5: (1, 0.0), 0.7: (1, 0.0), 0.8: (1, 1.0), 0.9: (1, 1.0)
    }  # fmt: skip


def test_pictures_are_chosen_once(scene):
    choice = choose(scene, 0.4)
    assert [(one.index, one.why) for one in choice.worst] == [
        (0, "1 false, 1 missed"),
        (1, "1 false, 1 missed"),
    ]
    assert choice.doubtful == choice.labels == ()
    choice = choose(scene, 0.4, most=1)
    assert [one.index for one in choice.doubtful] == [1]
    assert choice.doubtful[0].why == "scores within 0.1 of 0.40: 1"


def test_what_the_labels_deny():
    sure = [(box(0, 0), 0, 0.9), (box(60, 60), 1, 0.8)]
    records = [record(1, [(box(0, 0), 1)]), record(2, []), record(3, [])]
    every = [found(sure[:1], NAMES), found(sure[1:], NAMES), found([], NAMES)]
    choice = choose(judged(every, records, NAMES), 0.1, most=0)
    assert choice.labels == ()
    choice = choose(judged(every, records, NAMES), 0.95, most=3)
    assert choice.worst == (choice.worst[0],)  # nothing is shown, one object missed
    weights = choose(judged(every[1:], records[1:], NAMES), 0.0, most=1).worst
    assert [one.why for one in weights] == ["1 false, 0 missed"]


# ---- pycocotools


def _reference(one: Judged, conf: float) -> COCOeval:
    shown = [d[d.scores > conf] for d in one.found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": r.image_id} for r in one.records],
            "categories": [{"id": i, "name": n} for i, n in enumerate(one.names, 1)],
            "annotations": _annotations(one.records, "bbox"),
        }
        truth.createIndex()
        rows = [row for d, r in zip(shown, one.records, strict=True)
                for row in coco_rows(d, r, "bbox")]  # fmt: skip
        evaluation = COCOeval(truth, truth.loadRes(rows) if rows else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _counted(evaluation: COCOeval) -> tuple[int, int]:
    """Detections that count, and those of them that are right, at an IoU of 0.5."""
    shown = right = 0
    for image in evaluation.evalImgs:
        if image is not None and image["aRng"] == [0, 1e10]:
            counts = ~image["dtIgnore"][0].astype(bool)
            shown += int(counts.sum())
            right += int((image["dtMatches"][0].astype(bool) & counts).sum())
    return shown, right


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(max_examples=15, deadline=None)
@given(scenes())
def test_counts_and_curves_are_pycocotools(drawn):
    every, records, names = drawn
    one = judged(every, records, names)
    curve = overall(one.matches, 0.001)
    for conf in (0.01, 0.3, 0.7):
        at = int(np.argmin(np.abs(curve.conf - conf)))
        if not any((d.scores > conf).any() for d in every):
            assert curve.recall[at] == 0
            continue
        shown, right = _counted(_reference(one, conf))
        assert curve.recall[at] == right / max(curve.count, 1)
        assert shown == 0 or curve.precision[at] == right / shown
    if any(map(len, every)):
        theirs = _reference(one, 0.0).eval["precision"][0, :, :, 0, 2]
        ours = np.asarray(one.evaluation.eval["precision"])[0, :, :, 0, 2]
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


# ---- any scene


@settings(max_examples=20, deadline=None)
@given(scenes())
def test_sums_agree(drawn):
    every, records, names = drawn
    one = judged(every, records, names)
    together, curves = overall(one.matches, 0.001), by_class(one.matches, names, 0.001)
    assert sum(curve.count for curve in curves) == together.count
    conf = together.best.conf or 0.25
    assert 0.01 <= conf <= 0.99
    bins = by_size(one.matches, conf)
    assert sum(one.objects for one in bins) == together.count
    assert sum(one.count for one in calibration(one.evaluation)) == len(one.matches.score)
    matrix = confusion(one.above(conf), names)
    assert matrix.counts[:-1].sum() >= together.count  # crowds that are hit are not counted
    choice = choose(one, conf)
    indices = [c.index for kind in vars(choice).values() for c in kind]
    assert len(indices) == len(set(indices))


def test_nothing_at_all():
    empty: list[Detections] = [found([], NAMES)]
    one = judged(empty, [record(1, [])], NAMES)
    assert overall(one.matches, 0.001).best.conf is None
    assert by_size(one.matches, 0.5) == calibration(one.evaluation) == []
    assert choose(one, 0.5).worst == ()
