"""Large pictures in tiles: small objects are found, and those on a seam once."""

import numpy as np
import pytest
from PIL import Image

from vovnet.detect.tiles import Seen, Tiling, _held, detect_tiled, join
from vovnet.errors import VovnetError
from vovnet.load import load_detector

TILING = Tiling(320, 0.25)  # tiles begin at 0, 240, 480, ...


@pytest.fixture(scope="module")
def shipped():
    return load_detector("vovdet_nano.voc", runtime="onnxruntime")


def overlap(one, other) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = (high - low).clip(0).prod()
    return both / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - both)


def test_tiles_cover_the_picture():
    assert Tiling(100, 0.2).boxes(90, 50) == [(0, 0, 90, 50)]
    tiles = Tiling(100, 0.2).boxes(250, 100)
    assert tiles == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100), (0, 0, 250, 100)]
    seen = np.zeros((777, 1003), bool)
    for x1, y1, x2, y2 in Tiling(128, 0.3).boxes(1003, 777)[:-1]:
        assert (x2 - x1, y2 - y1) == (128, 128)
        seen[y1:y2, x1:x2] = True
    assert seen.all()


@pytest.mark.parametrize(("side", "overlap", "words"), [(8, 0.2, "--tile 8"), (64, 1, "--overlap")])
def test_tiles_that_make_no_sense(side, overlap, words):
    with pytest.raises(VovnetError, match=words):
        Tiling(side, overlap)


def test_objects_on_a_seam_come_once(shipped, photographs):
    """Small cats, on seams, on a crossing of seams, and free of them, each found once and whole."""
    cat = photographs[1].resize((150, 100))
    corners = [(20, 30), (225, 40), (480, 300), (215, 260), (700, 520), (440, 560)]
    canvas = Image.new("RGB", (1000, 760), (120, 130, 120))
    for corner in corners:
        canvas.paste(cat, corner)
    found = detect_tiled(shipped, canvas, TILING)
    cats = found[found.labels == found.names.index("cat")]
    places = np.array([(x, y, x + 150, y + 100) for x, y in corners], np.float64)
    hits = np.array([[overlap(box, place) > 0.4 for place in places] for box in cats.boxes])
    assert hits.sum(0).tolist() == [1] * len(corners)
    assert len(cats) == len(corners)
    assert found.image_size == (760, 1000)
    assert (np.diff(found.scores) <= 0).all()
    assert len(shipped.detect(canvas)) < len(corners)  # what the whole shows alone


def test_an_object_that_no_tile_holds_is_whole(shipped, photographs):
    cat = photographs[1].resize((902, 600))
    found = detect_tiled(shipped, cat, TILING)
    [whole] = shipped.detect(cat).boxes
    cats = found[found.labels == found.names.index("cat")]
    assert max(overlap(box, whole) for box in cats.boxes) > 0.8


def test_a_small_picture_is_seen_as_ever(shipped, photographs, compare_found):
    small = photographs[1].resize((300, 200))
    compare_found(detect_tiled(shipped, small, TILING), shipped.detect(small))


def test_the_most_of_a_picture(shipped, photographs):
    large = photographs[0].resize((900, 900))
    assert len(detect_tiled(shipped, large, TILING, conf=0.05, max_det=3)) == 3


def test_the_whole_is_for_what_no_tile_holds():
    boxes = np.array([(0, 5, 40, 60), (60, 5, 98, 60), (60, 5, 99, 60), (70, 5, 120, 60)])
    tiles = np.array([(0, 0, 100, 100), (80, 0, 180, 100)])
    held = _held(boxes, tiles, np.array([0, 0, 180, 100]))
    assert held.tolist() == [True, True, False, False]  # at the edge, free, cut off, on the seam


def test_the_whole_adds_nothing_small(shipped, photographs):
    """At a low confidence it shows much; none of that is of a size that tiles see."""
    canvas = photographs[0].resize((1000, 760))
    places = np.array(TILING.boxes(1000, 760), np.float64)
    rest = shipped.detect(canvas, conf=0.02).boxes
    small = rest[_held(rest, places[:-1], places[-1])]
    found = detect_tiled(shipped, canvas, TILING, conf=0.02).boxes
    assert len(small)
    assert not any((box == found).all(1).any() for box in small)


LEFT, RIGHT = (0, 0, 100, 100), (80, 0, 180, 100)


def seen(*rows) -> Seen:
    """Rows of box, score, label, tile and whether it is cut off."""
    boxes, scores, labels, tiles, cut = zip(*rows, strict=True)
    return Seen(*map(np.array, (boxes, scores, labels, tiles, cut)))


def test_what_all_tiles_cut_off_is_put_together():
    parts = ((20, 10, 100, 60), 0.6, 0, LEFT, True), ((80, 12, 170, 62), 0.8, 0, RIGHT, True)
    joined = join(seen(*parts))
    assert joined.boxes.tolist() == [[20, 10, 170, 62]]
    assert joined.scores.tolist() == [0.8]


def test_a_whole_one_wins_over_a_better_scored_part():
    whole = ((70, 10, 98, 60), 0.5, 0, LEFT, False)
    joined = join(seen(whole, ((80, 8, 98, 60), 0.9, 0, RIGHT, True)))
    assert joined.boxes.tolist() == [[70, 10, 98, 60]]
    assert joined.scores.tolist() == [0.9]


def test_what_differs_stays_apart():
    box = (82, 10, 98, 60)
    assert len(join(seen((box, 0.9, 0, LEFT, False), (box, 0.8, 1, RIGHT, False))).scores) == 2
    both = seen((box, 0.9, 0, LEFT, False), (box, 0.8, 1, RIGHT, False))
    assert len(join(both, agnostic=True).scores) == 1
    assert len(join(seen((box, 0.9, 0, LEFT, False), (box, 0.8, 0, LEFT, False))).scores) == 2
    below = (82, 70, 98, 99)
    assert len(join(seen((box, 0.9, 0, LEFT, False), (below, 0.8, 0, RIGHT, False))).scores) == 2
