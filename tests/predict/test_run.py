import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.models.weights import load_detector
from vovnet.predict import Row, predict_files
from vovnet.predict.run import _AHEAD

CONF = 0.0105  # random weights score every class near 0.01


@pytest.fixture(scope="module")
def detector(nano):
    return load_detector(nano, fuse=True)


def picture(path: Path, size: tuple[int, int] = (60, 40), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_rows_come_in_order_with_their_own_sizes(detector, tmp_path):
    sizes = [(60, 40), (64, 64), (30, 90), (1, 1), (200, 20)]
    paths = [picture(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)]
    rows = list(predict_files(detector, paths, conf=CONF))
    assert [row.path for row in rows] == paths
    assert [row.detections.image_size for row in rows] == [size[::-1] for size in sizes]
    for row, (width, height) in zip(rows, sizes, strict=True):
        assert (row.detections.boxes >= 0).all()
        assert (row.detections.boxes <= [width, height] * 2).all()
    assert any(len(row.detections) for row in rows)


def test_each_file_is_seen_as_if_alone(detector, tmp_path):
    paths = [picture(tmp_path / f"{c}.png", colour=c) for c in ("red", "blue", "white")]
    together = list(predict_files(detector, paths, conf=CONF))
    for path, row in zip(paths, together, strict=True):
        [alone] = predict_files(detector, [path], conf=CONF)
        assert np.array_equal(alone.detections.boxes, row.detections.boxes)
        assert np.array_equal(alone.detections.scores, row.detections.scores)
    scores = [row.detections.scores.tobytes() for row in together]
    assert len(set(scores)) == 3


def test_the_threshold_decides(detector, tmp_path):
    path = picture(tmp_path / "a.png")
    [low], [high] = (list(predict_files(detector, [path], conf=c)) for c in (CONF, 0.5))
    assert len(low.detections) > len(high.detections) == 0
    assert (low.detections.scores > CONF).all()


def test_bad_files_get_a_row_with_the_reason(detector, tmp_path):
    good = picture(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("hello")
    paths = [tmp_path / "missing.jpg", good, tmp_path / "text.jpg", good]
    rows = list(predict_files(detector, paths, out=tmp_path / "out"))
    assert [row.path for row in rows] == paths
    assert [row.detections is None for row in rows] == [True, False, True, False]
    for row in rows[::2]:
        assert row.error.startswith(f"{row.path}: ")
        assert row.drawn is None
        assert row.to_dict() == {"path": str(row.path), "error": row.error, "detections": []}
    assert [row.error for row in rows[1::2]] == [None, None]


def test_a_row_in_json(detector, tmp_path):
    path = picture(tmp_path / "a.png")
    [row] = predict_files(detector, [path], conf=CONF, out=tmp_path / "out")
    shown = json.loads(json.dumps(row.to_dict()))
    assert shown.keys() == {"path", "height", "width", "annotated", "detections"}
    assert (shown["path"], shown["height"], shown["width"]) == (str(path), 40, 60)
    assert shown["annotated"] == str(tmp_path / "out" / "a.png")
    assert len(shown["detections"]) == len(row.detections) > 0
    for item in shown["detections"]:
        assert item.keys() == {"label", "score", "box"}
        assert item["label"] in {"blue", "red"}
        assert CONF < item["score"] < 1
        assert list(item["box"]) == ["xmin", "ymin", "xmax", "ymax"]
        assert 0 <= item["box"]["xmin"] <= item["box"]["xmax"] <= 60


def test_without_a_folder_nothing_is_written(detector, tmp_path):
    path = picture(tmp_path / "a.png")
    [row] = predict_files(detector, [path], conf=CONF)
    assert row.drawn is row.to_dict()["annotated"] is None
    assert list(tmp_path.iterdir()) == [path]


def test_annotated_copies_show_the_picture_with_its_boxes(detector, tmp_path):
    path = picture(tmp_path / "a.jpg", (120, 80))
    before = path.read_bytes()
    [row] = predict_files(detector, [path], conf=CONF, out=tmp_path / "new" / "out")
    with Image.open(row.drawn) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (120, 80))
        assert drawn.tobytes() != Image.new("RGB", (120, 80), "red").tobytes()
    assert path.read_bytes() == before


def test_files_of_the_same_name_do_not_overwrite_each_other(detector, tmp_path):
    colours = ("red", "blue", "white", "lime")
    names = ("one/a.png", "two/a.png", "two/a.jpg", "three/a-2.png")
    paths = [
        picture(tmp_path / name, (9 + i, 9), colour)
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    rows = list(predict_files(detector, paths, conf=0.9, out=tmp_path / "out"))
    assert [row.drawn.name for row in rows] == ["a.png", "a-2.png", "a-3.png", "a-2-2.png"]
    for i, row in enumerate(rows):
        with Image.open(row.drawn) as drawn:
            assert drawn.size == (9 + i, 9)


def test_files_are_taken_up_only_a_little_ahead(detector, tmp_path):
    path = picture(tmp_path / "a.png", (8, 8))
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield path

    rows = predict_files(detector, endless())
    assert taken == 0
    for number in range(1, 12):
        assert isinstance(next(rows), Row)
        assert number <= taken <= number + _AHEAD + 2
    rows.close()
    assert taken < 11 + _AHEAD + 3


def test_a_folder_that_cannot_be_written(detector, tmp_path):
    path = picture(tmp_path / "a.png")
    [row] = predict_files(detector, [path], conf=CONF, out=path / "out")
    assert "a.png: cannot write: " in row.error
    assert row.drawn is None
    assert len(row.detections) > 0
    assert row.to_dict().keys() >= {"error", "detections", "height", "width"}
