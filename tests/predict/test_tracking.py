"""Objects keep their numbers through a video."""

import json
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from vovnet.detections import Detections
from vovnet.predict import stream
from vovnet.predict.assignment import assign
from vovnet.predict.tracking import CountLine, Tracker


def cost_of(pairs, costs, most) -> float:
    return sum(costs[pair] for pair in pairs) + most * (min(costs.shape) - len(pairs))


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 2), (4, 4), (6, 5), (0, 3)])
def test_assignment_is_the_cheapest_of_all(shape):
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, most = rng.random(shape), 0.6
        pairs = assign(costs, most)
        rows, columns = shape
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert all(costs[pair] <= most for pair in pairs)
        wide = costs if rows <= columns else costs.T
        best = min(
            sum(min(wide[i, j], most) for i, j in enumerate(order))
            for order in permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert cost_of(pairs, costs, most) == pytest.approx(best)


def found(*boxes, scores=None, labels=None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, float).reshape(-1, 4),
        np.full(count, 0.9) if scores is None else np.array(scores),
        np.zeros(count, int) if labels is None else np.array(labels),
        ("cat", "dog"),
    )


def square(x, y=50.0, side=20.0) -> tuple[float, ...]:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def test_two_that_meet_keep_their_numbers():
    tracker, numbers = Tracker(0.25), []
    for i in range(40):
        seen = tracker.update(found(square(10 + 4 * i, 50), square(170 - 4 * i, 58), labels=[0, 1]))
        numbers.append(seen.tracks.tolist())
    assert numbers == [[1, 2]] * 40


def test_one_that_passes_at_speed_is_expected_where_it_is():
    """Its boxes do not overlap those of two frames before: the speed tells where it is."""
    tracker, numbers = Tracker(0.25), set()
    for i in range(30):
        if i % 6 == 5:  # unseen
            assert len(tracker.update(found())) == 0
        else:
            numbers |= set(tracker.update(found(square(10 + 12 * i))).tracks.tolist())
    assert numbers == {1}


def test_low_scores_go_on_with_a_track_and_begin_none():
    tracker = Tracker(0.5)
    assert len(tracker.update(found(square(50), scores=[0.3]))) == 0
    assert tracker.update(found(square(50), scores=[0.9])).tracks.tolist() == [1]
    assert tracker.update(found(square(52), scores=[0.2])).tracks.tolist() == [1]
    assert len(tracker.update(found(square(150), scores=[0.2]))) == 0


def test_classes_do_not_mix_and_the_lost_are_forgotten():
    tracker = Tracker(0.25)
    tracker.update(found(square(50)))
    assert tracker.update(found(square(50), labels=[1])).tracks.tolist() == [2]
    for _ in range(31):
        tracker.update(found())
    assert tracker.update(found(square(50))).tracks.tolist() == [3]


def test_who_crosses_a_line_is_counted_each_way():
    line = CountLine((100, 0), (100, 100))  # downwards: its right is the picture's left
    for x in (60, 90, 110, 140, 90):
        seen = found(square(x), square(x, 150))  # the second passes below the line's end
        seen = Detections(seen.boxes, seen.scores, seen.labels, seen.names, tracks=[1, 2])
        counts = line.update(seen)
    assert counts == {"cat": {"in": 1, "out": 1}}


def test_a_photographed_cat_keeps_its_number(run, video, tmp_path):
    pytest.importorskip("av")
    options = ("--track", "--count-line", "160,0,160,240", "--save-csv", "--save-txt")
    outcome = run("predict", "pan.mp4", *options, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    cats = [[one["track"] for one in row["detections"] if one["label"] == "cat"] for row in rows]
    assert [numbers[0] for numbers in cats] == [1] * 11
    assert "counts" in rows[-1]
    table = (tmp_path / "out/detections.csv").read_text().splitlines()
    assert table[1].rsplit(",", 1)[1] == "1"
    assert (tmp_path / "out/labels/pan-000000.txt").read_text().split()[-1] == "1"


def test_each_video_counts_anew_and_pictures_have_no_tracks(tmp_path, pan, write_video, shipped):
    pytest.importorskip("av")
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, pan[:3], Fraction(25))
    pan[0].save(tmp_path / "c.png")
    names = [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.png")]
    *rows, picture = stream(shipped, names, track=True, conf=0.3)
    assert [set(row.detections.tracks.tolist()) for row in rows] == [{1}] * 6
    assert picture.detections.tracks is None
    assert (picture.detections.scores > 0.3).all()


def test_a_count_line_that_is_none(refused, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert "--count-line: needs tracks; add --track" in refused(
        "predict", "a.png", "--count-line", "1,2,3,4"
    )
    assert "--count-line 1,2: give two points" in refused(
        "predict", "a.png", "--track", "--count-line", "1,2"
    )
