import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.data.record import Record
from vovnet.errors import VovnetError
from vovnet.evaluate.run import detect_records
from vovnet.images import open_image
from vovnet.models.weights import load_detector
from vovnet.predict import Row, predict_files
from vovnet.predict.stream import _AHEAD

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
        assert (drawn.format, drawn.size) == ("JPEG", (120, 80))
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
    assert [row.drawn.name for row in rows] == ["a.png", "a-2.png", "a-3.jpg", "a-2-2.png"]
    for i, row in enumerate(rows):
        with Image.open(row.drawn) as drawn:
            assert drawn.size == (9 + i, 9)


def test_names_differ_on_file_systems_that_ignore_case(detector, tmp_path):
    paths = [
        picture(tmp_path / name, (9, 9)) for name in ("one/a.png", "two/A.png", "3/caf\u00e9.png")
    ]
    paths.append(picture(tmp_path / "4" / "Cafe\u0301.png", (9, 9)))
    rows = list(predict_files(detector, paths, conf=0.9, out=tmp_path / "out"))
    names = [row.drawn.name for row in rows]
    assert names == ["a.png", "A-2.png", "caf\u00e9.png", "Cafe\u0301-2.png"]


def test_a_second_run_replaces_nothing_unless_told_to(detector, tmp_path):
    paths = [picture(tmp_path / "in" / name) for name in ("a.png", "b.png")]
    out = tmp_path / "out"
    list(predict_files(detector, paths, conf=CONF, out=out))
    (out / "a.png").write_bytes(b"mine")
    for taken in (out / "a.png", None):
        with pytest.raises(VovnetError) as caught:
            list(predict_files(detector, paths, conf=CONF, out=out))
        more = " (and 1 more)" if taken else ""
        first = out / ("a.png" if taken else "b.png")
        assert str(caught.value) == (
            f"--out {out}: {first}{more} is there already; "
            "give another name, or --overwrite to replace it"
        )
        if taken:
            assert taken.read_bytes() == b"mine"
            taken.unlink()
    assert sorted(path.name for path in out.iterdir()) == ["b.png"]
    list(predict_files(detector, paths, conf=CONF, out=out, overwrite=True))
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]


def symbolic(source: Path, name: Path) -> None:
    name.symlink_to(source)


def hard(source: Path, name: Path) -> None:
    name.hardlink_to(source)


@pytest.mark.parametrize("link", [symbolic, hard])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_original_is_never_replaced_through_a_link(detector, tmp_path, link, overwrite):
    original = picture(tmp_path / "orig" / "a.png")
    before = original.read_bytes()
    (tmp_path / "links").mkdir()
    link(original, tmp_path / "links" / "a.png")
    run = predict_files(
        detector, [tmp_path / "links" / "a.png"], out=tmp_path / "orig", overwrite=overwrite
    )
    with pytest.raises(VovnetError, match=r"orig/a\.png is an input itself; give another name"):
        list(run)
    assert original.read_bytes() == before
    assert [path.name for path in (tmp_path / "orig").iterdir()] == ["a.png"]


def test_a_picture_that_comes_while_it_runs_is_not_replaced(detector, tmp_path):
    paths = [picture(tmp_path / "in" / name) for name in ("a.png", "b.png")]
    rows = predict_files(detector, paths, conf=CONF, out=tmp_path / "out")
    assert next(rows).error is None
    (tmp_path / "out" / "b.png").write_bytes(b"another's")
    second = next(rows)
    assert "out/b.png: cannot write: File exists; the previous file is kept" in second.error
    assert len(second.detections) > 0
    assert (tmp_path / "out" / "b.png").read_bytes() == b"another's"


def test_an_image_gives_one_answer_drawn_or_not_and_in_val(detector, tmp_path):
    """An enlarged JPEG is decoded smaller than it is; what is drawn on is whole."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / "large.jpg"
    Image.fromarray(pixels).resize((900, 600)).save(path, quality=92)
    assert open_image(path, shrink_to=64)[0].size == (113, 75)
    [bare] = predict_files(detector, [path], conf=CONF)
    [drawn] = predict_files(detector, [path], conf=CONF, out=tmp_path / "out")
    record = Record(path, 0, np.zeros((0, 4)), *(np.zeros(0, int),) * 3, size=(600, 900))
    [judged] = detect_records(detector, [record], conf=CONF, iou=0.6)
    assert len(bare.detections) > 0
    for found in (drawn.detections, judged):
        assert found.image_size == (600, 900)
        assert np.array_equal(found.boxes, bare.detections.boxes)
        assert np.array_equal(found.scores, bare.detections.scores)
    with Image.open(drawn.drawn) as picture_drawn:
        assert picture_drawn.size == (900, 600)


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
