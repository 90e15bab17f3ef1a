"""Data sets as tools and people write them, which no book of the layouts tells: read rightly.

Each is read twice, for training and by the doctor, and both say the same.
"""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vovnet.data.doctor import examine, write_clean_copy
from vovnet.data.mask_code import encode_mask
from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.errors import DataError

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)
SQUARE = [[4.0, 4, 24, 4, 24, 24, 4, 24]]


def picture(path: Path, size: tuple[int, int] = (100, 100)) -> Path:
    """A picture that no other path's looks like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(i * ord(char) for i, char in enumerate(str(path)))
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def boxes(data: Dataset) -> dict[str, list]:
    return {r.path.name: r.boxes.round(3).tolist() for r in data.records}


def found(root: Path) -> set[str]:
    return {finding.id for finding in examine(root, workers=1).report.findings}


# ---- YOLO: key points, oriented boxes


def yolo(root: Path, lines: list[str], config: str = "") -> Path:
    picture(root / "images" / "train" / "a.png")
    write(root / "labels" / "train" / "a.txt", "\n".join(lines) + "\n")
    write(root / "data.yaml", f"train: images/train\nnames: [cat, dog]\n{config}")
    return root


@pytest.mark.parametrize(
    ("shape", "tail"),
    [
        ("[3, 2]", ".3 .4 .5 .6 .7 .8"),
        ("[2, 3]", ".3 .4 2 .5 .6 1"),
        ("[4, 3]", ".3 .4 2 .5 .6 0 0 0 0 .7 .8 1"),
    ],
)
def test_key_points_are_no_polygon(tmp_path, shape, tail):
    line = f"0 .5 .6 .6 .6 {tail}"
    root = yolo(tmp_path / "set", [line, "1 .5 .5 .2 .2"], f"kpt_shape: {shape}\n")
    data = open_dataset(root, "train")
    assert boxes(data) == {"a.png": [[20, 30, 80, 90], [40, 40, 60, 60]]}
    assert data.records[0].segmentations == ()
    assert found(root) >= {"VD613"}
    write_clean_copy(examine(root), tmp_path / "copy")
    assert boxes(open_dataset(tmp_path / "copy", "train")) == boxes(data)
    assert len((tmp_path / "copy/labels/train/a.txt").read_text().split()) == 10


def test_a_line_that_is_not_as_long_as_kpt_shape_says(tmp_path):
    root = yolo(tmp_path, ["0 .5 .6 .6 .6 .3 .4", "1 .5 .5 .2 .2"], "kpt_shape: [3, 2]\n")
    (finding,) = [f for f in open_dataset(root, "train").findings if f.action]
    assert (finding.id, finding.object, finding.action) == ("VD603", 1, "left out")
    assert "neither 4 nor 4 + 3·2, which kpt_shape says" in finding.what
    assert "VD603" in found(root)
    yolo(root, ["1 .5 .5 .2 .2"], "kpt_shape: three\n")
    assert "kpt_shape is 'three'" in refusal(root, "train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 .5 .6 .6 .6 .3 .4 2 .5 .6 1", "a box and 2 key points with visibilities"),
        ("0 .5 .6 .6 .6 .3 .4 2 .5 .6 1 .1 .1 0", "13 numbers behind the class"),
    ],
)
def test_key_points_that_no_polygon_can_be(tmp_path, line, words):
    root = yolo(tmp_path, [line, "1 .5 .5 .2 .2"])
    data = open_dataset(root, "train")
    assert boxes(data) == {"a.png": [[40, 40, 60, 60]]}
    (finding,) = [f for f in data.findings if f.action]
    assert (finding.id, finding.object) == ("VD611", 1)
    assert words in finding.what
    assert "VD611" in found(root)


def key_point_lines(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        (cx, cy), (w, h) = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.5, 2)
        points = rng.uniform(-0.5, 0.5, (3, 2)) * (w, h) + (cx, cy)
        lines.append(" ".join(f"{v:.4f}" for v in (cx, cy, w, h, *points.ravel())))
    return [f"0 {line}" for line in lines]


def test_a_set_of_unannounced_key_points_is_refused(tmp_path):
    root = yolo(tmp_path / "set", key_point_lines(30))
    message = refusal(root, "train")
    assert "VD612 labels-key-points" in message
    assert "kpt_shape may be [3, 2] or [2, 3]" in message
    assert "write kpt_shape" in message
    assert "VD612" in found(root)
    write_clean_copy(examine(root), tmp_path / "copy")
    write(root / "data.yaml", "train: images/train\nnames: [cat, dog]\nkpt_shape: [3, 2]\n")
    copied = open_dataset(tmp_path / "copy", "train").records[0].boxes
    np.testing.assert_allclose(copied, open_dataset(root, "train").records[0].boxes, atol=1e-3)


def test_polygons_of_equal_length_stay_polygons(tmp_path):
    rng = np.random.default_rng(1)
    corners = rng.uniform(0.05, 0.6, (30, 2))[:, None] + rng.uniform(0, 0.35, (30, 5, 2))
    lines = [f"0 {' '.join(f'{v:.4f}' for v in shape.ravel())}" for shape in corners]
    (record,) = open_dataset(yolo(tmp_path, lines), "train").records
    expected = np.concatenate((corners.min(1), corners.max(1)), 1) * 100
    np.testing.assert_allclose(record.boxes, expected, atol=0.02)
    assert all(len(mask[0]) == 10 for mask in record.segmentations)


def test_an_oriented_box_is_a_polygon_of_four_points(tmp_path):
    root = yolo(tmp_path, ["0 .5 .2 .8 .5 .5 .8 .2 .5"])
    (record,) = open_dataset(root, "train").records
    assert record.boxes.round(3).tolist() == [[20, 20, 80, 80]]
    np.testing.assert_allclose(record.segmentations[0], [[50, 20, 80, 50, 50, 80, 20, 50]])


# ---- YOLO: labels that are there, under other names


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "images/train/a.txt"),
        ("images/train/a.jpg", "labels/train/a.TXT"),
        ("images/train/Cat.JPG", "labels/train/cat.txt"),
        ("images/train/a b.jpg", "labels/train/a%20b.txt"),
        (
            f"images/train/{unicodedata.normalize('NFD', 'é')}.jpg",
            f"labels/train/{unicodedata.normalize('NFC', 'é')}.txt",
        ),
    ],
)
def test_labels_are_found_where_that_is_safe(tmp_path, image, label):
    picture(tmp_path / image)
    write(tmp_path / label, "0 .5 .5 .2 .2\n")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    data = open_dataset(tmp_path, "train")
    assert [r.boxes.round(3).tolist() for r in data.records] == [[[40, 40, 60, 60]]]
    assert [f for f in data.findings if f.action] == []
    assert {"VD408", "VD606", "VD604"}.isdisjoint(found(tmp_path))


def test_another_images_label_is_not_taken(tmp_path):
    for name in ("a.jpg", "A.jpg"):
        picture(tmp_path / "images" / "train" / name)
    write(tmp_path / "labels" / "train" / "A.txt", "0 .5 .5 .2 .2\n")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    data = open_dataset(tmp_path, "train")
    assert {r.path.name: len(r.boxes) for r in data.records} == {"A.jpg": 1, "a.jpg": 0}
    assert [(f.id, f.image, f.action) for f in data.findings if f.action] == [
        ("VD606", "a.jpg", "background")
    ]


def test_flat_folders_of_pictures_and_labels(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "1 .5 .5 .2 .2\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    data = open_dataset(tmp_path)
    assert (data.split, data.names, len(data)) == ("all", ("cat", "dog"), 2)
    assert data.records[0].labels.tolist() == [1]
    for split in ("train", "valid"):
        picture(tmp_path / "split" / split / "a.jpg")
        write(tmp_path / "split" / split / "a.txt", "0 .5 .5 .2 .2\n")
        write(tmp_path / "split" / split / "classes.txt", "cat\ndog\n")
    assert [len(open_dataset(tmp_path / "split", s)) for s in ("train", "val")] == [1, 1]


# ---- names as they are written


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[02146, 21008]", ("02146", "21008")),
        ("[off, on]", ("off", "on")),
        ("[SE, NO, DK]", ("SE", "NO", "DK")),
        ("[12:30, 1e3, 2020-01-01, ~, null, 1_000]",
         ("12:30", "1e3", "2020-01-01", "~", "null", "1_000")),
        ("{0: no, 1: yes}", ("no", "yes")),
        ("{'0': a, '1': b}", ("a", "b")),
        ("\n- y\n- 0x1F\n", ("y", "0x1F")),
    ],
)  # fmt: skip
def test_names_arrive_as_they_are_written(tmp_path, written, names):
    root = yolo(tmp_path / "set", ["0 .5 .5 .2 .2"])
    write(root / "data.yaml", f"train: images/train\nnames: {written}\n")
    assert open_dataset(root, "train").names == names
    assert examine(root, workers=1).raw.names == names
    write_clean_copy(examine(root), tmp_path / "copy")
    assert open_dataset(tmp_path / "copy", "train").names == names


# ---- VOC


def voc(root: Path, stem: str = "a", xml: str = "", suffix: str = ".jpg") -> Path:
    picture(root / "JPEGImages" / f"{stem}{suffix}")
    objects = OBJECT.format("cat", 21, 31, 80, 90)
    write(root / "Annotations" / f"{stem}.xml", xml or f"<annotation>{objects}</annotation>")
    return root


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp", ".PNG", ".jpeg", ".gif"])
def test_pictures_of_any_suffix(tmp_path, suffix):
    data = open_dataset(voc(tmp_path, suffix=suffix))
    assert boxes(data) == {f"a{suffix}": [[20, 30, 80, 90]]}
    assert "VD101" not in found(tmp_path)


def test_the_picture_that_filename_names(tmp_path):
    xml = f"<annotation><filename>a.png</filename>{OBJECT.format('cat', 1, 1, 9, 9)}</annotation>"
    voc(tmp_path, xml=xml)
    picture(tmp_path / "JPEGImages" / "a.png")
    assert list(boxes(open_dataset(tmp_path))) == ["a.png"]


def test_folders_below_the_folders_share_their_classes(tmp_path):
    for name, part in (("cat", "train"), ("dog", "val")):
        voc(tmp_path, f"{part}/a", f"<annotation>{OBJECT.format(name, 1, 1, 9, 9)}</annotation>")
        write(tmp_path / "ImageSets" / "Main" / f"{part}.txt", f"{part}/a\n")
    for part, label in (("train", 0), ("val", 1)):
        data = open_dataset(tmp_path, part)
        assert data.names == ("cat", "dog")
        assert data.records[0].labels.tolist() == [label]


@pytest.mark.parametrize("parts", [("",), ("train/", "valid/")])
def test_annotations_beside_their_pictures(tmp_path, parts):
    for part in parts:
        picture(tmp_path / f"{part}a.jpg")
        objects = OBJECT.format("cat", 21, 31, 80, 90)
        write(tmp_path / f"{part}a.xml", f"<annotation>{objects}</annotation>")
    data = open_dataset(tmp_path, "val" if len(parts) > 1 else None)
    assert (data.kind, boxes(data)) == ("voc", {"a.jpg": [[20, 30, 80, 90]]})
    copy = tmp_path.with_name("copy_of_" + tmp_path.name)
    write_clean_copy(examine(tmp_path, workers=1), copy)
    assert sum(len(open_dataset(copy, s)) for s in examine(copy).report.splits) == len(parts)


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg", '"a"', "'a.jpg'", "JPEGImages/a.jpg", "./JPEGImages/a.jpg", "a 1", "a\t-1",
        "a \N{MINUS SIGN}1", "JPEGImages\\a.jpg", "{root}/JPEGImages/a.jpg",
        "{link}/JPEGImages/a.jpg", "Annotations/a.xml",
    ],
)  # fmt: skip
def test_lines_of_lists(tmp_path, line):
    root = voc(tmp_path / "set")
    (tmp_path / "link").symlink_to(root)
    text = line.format(root=root.resolve(), link=tmp_path / "link")
    write(root / "ImageSets" / "Main" / "train.txt", f"{text}\n")
    assert list(boxes(open_dataset(tmp_path / "link", "train"))) == ["a.jpg"]
    assert "VD602" not in found(root)


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("gb2312", "gb2312", "猫"),
        ("gb2312", "gbk", "貓"),
        ("Shift_JIS", "shift_jis", "ねこ"),
        ("utf8", "utf-8", "chat é"),
        ("UTF-8", "utf-8-sig", "é"),
        ("ISO-8859-1", "latin-1", "é"),
        ("utf-16", "utf-16", "é"),
        ("", "utf-8", "é"),
    ],
)
def test_encodings_of_xml(tmp_path, declared, codec, name):
    head = f"<?xml version='1.0' encoding='{declared}'?>" if declared else ""
    xml = f"{head}<annotation>{OBJECT.format(name, 1, 1, 9, 9)}</annotation>"
    voc(tmp_path)
    write(tmp_path / "Annotations" / "a.xml", xml, codec)
    assert open_dataset(tmp_path).names == (name,)
    assert examine(tmp_path, workers=1).raw.names == (name,)


# ---- COCO


def coco(root: Path, file_name: str, *, at: str = "instances_train.json", **changes: Any) -> Path:
    item = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 30, 60, 60]}
    content = {
        "images": [{"id": 1, "file_name": file_name, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [item | changes.pop("item", {})],
    }
    return write(root / at, json.dumps(content | changes))


@pytest.mark.parametrize(
    ("file_name", "place", "at"),
    [
        ("images\\a.jpg", "images/a.jpg", "instances_train.json"),
        ("a.jpg", "data/a.jpg", "labels.json"),
        ("../images/a.jpg", "images/a.jpg", "annotations/instances_train.json"),
        ("A.JPG", "images/a.jpg", "instances_train.json"),
        ("Images/a.jpg", "images/a.jpg", "instances_train.json"),
        ("somewhere/else/a.jpg", "images/a.jpg", "instances_train.json"),
        ("a%20b.jpg", "images/a b.jpg", "instances_train.json"),
        ("{root}/images/a.jpg", "images/a.jpg", "instances_train.json"),
        ("a.jpg", "images/a.jpg", "instances.json"),
    ],
)
def test_file_names_of_coco(tmp_path, file_name, place, at):
    picture(tmp_path / place)
    coco(tmp_path, file_name.format(root=tmp_path), at=at)
    data = open_dataset(tmp_path)
    assert list(boxes(data).values()) == [[[20, 30, 80, 90]]]
    assert {"VD101", "VD117", "VD607"}.isdisjoint(found(tmp_path))


def test_a_file_name_is_not_shortened_to_that_of_two_images(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    names = ["x/a.jpg", "y/a.jpg"]
    images = [{"id": i, "file_name": n, "width": 100, "height": 100} for i, n in enumerate(names)]
    coco(tmp_path, "", images=images)
    message = refusal(tmp_path)
    assert "x/a.jpg: no such file" in message
    assert f"pictures are looked for in {tmp_path}/images/train, {tmp_path}/train, " in message


@pytest.mark.parametrize(
    ("mask", "id_"),
    [
        ([[4.0, 4, 24, 24]], "VD501"),
        ({"size": [50, 50], "counts": [0, 2500]}, "VD503"),
        ({"size": [100, 100], "counts": [0, 10**9]}, "VD502"),
        ({"size": [10**9, 10**9], "counts": [0, 10**18]}, "VD503"),
        ([[0.0, 0, 1e11, 0, 1e11, 1e11]], "VD502"),
    ],
)
def test_masks_that_cannot_be_used_are_left_out_and_told(tmp_path, mask, id_):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg", item={"segmentation": mask})
    data = open_dataset(tmp_path)
    assert boxes(data) == {"a.jpg": [[20, 30, 80, 90]]}
    assert data.records[0].segmentations == ()
    assert [(f.id, f.action) for f in data.findings] == [(id_, "mask left out")]
    assert id_ in found(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        encode_mask(mask, (100, 100))


def test_a_polygon_of_two_points_beside_a_whole_one(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg", item={"segmentation": [[1, 1, 2, 2], *SQUARE]})
    assert open_dataset(tmp_path).records[0].segmentations == (SQUARE,)


def test_a_category_that_groups_the_others_is_no_class(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cells"},
        {"id": 2, "name": "dog", "supercategory": "cells"},
    ]
    coco(tmp_path, "a.jpg", categories=categories)
    data = open_dataset(tmp_path)
    assert (data.names, data.category_ids) == (("cat", "dog"), (1, 2))
    assert [(f.id, f.action) for f in data.findings] == [("VD320", "left out")]
    assert "VD320" in found(tmp_path)
    coco(tmp_path, "a.jpg", categories=categories, item={"category_id": 0})
    assert open_dataset(tmp_path).names == ("cells", "cat", "dog")


def test_ignore_means_difficult(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg", item={"ignore": 1})
    assert open_dataset(tmp_path).records[0].difficult.tolist() == [True]
    assert not examine(tmp_path, workers=1).raw.splits["train"][0].boxes[0].learned


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"id": 1, "image_id": "1", "category_id": 1, "bbox": [20, 30, 60, 60]}],
        [{"id": 1, "image_id": 1, "category_id": 1, "bbox": "20,30,60,60"}],
    ],
)
def test_nothing_is_left_of_the_objects(tmp_path, items):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg", annotations=items)
    assert boxes(open_dataset(tmp_path)) == {"a.jpg": []}
    assert "VD408" in found(tmp_path)


# ---- several sets


def test_classes_that_a_later_set_does_not_have(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg")
    data = open_dataset(tmp_path, names=("cat", "dog", "cow"))
    (finding,) = data.findings
    assert (finding.id, finding.action) == ("VD322", "background")
    assert finding.what == f"{tmp_path} has no dog, cow"


def test_boxes_of_classes_that_were_not_asked_for(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, "a.jpg")
    data = open_dataset(tmp_path, names=("dog",), drop_unknown=True)
    assert {(f.id, f.what) for f in data.findings} >= {("VD321", "cat, 1 boxes")}
    assert "--drop-unknown" in refusal(tmp_path, names=("dog",))


# ---- a YAML that names what is not there


def test_a_validation_split_that_is_not_there(tmp_path):
    root = yolo(tmp_path, ["0 .5 .5 .2 .2"], "val: images/val\n")
    message = refusal(root, purpose="val")
    assert "its YAML names val: 'images/val', which is not there" in message
    assert "which is not there" in refusal(root, "val")
    assert len(open_dataset(root)) == 1
    assert "VD407" in found(root)


# ---- files that mean harm


@pytest.fixture
def bomb() -> str:
    """509 bytes of YAML that are 9⁹ texts with its aliases written out."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for last, letter in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{letter}: &{letter} [{','.join([f'*{last}'] * 9)}]")
    return "\n".join([*lines, "train: *i", "names: [cat]", ""])


def test_aliases_do_not_explode(tmp_path, bomb):
    root = yolo(tmp_path, ["0 .5 .5 .2 .2"])
    write(root / "data.yaml", bomb)
    assert "aliases that repeat too much" in refusal(root)
    assert {"VD601"} <= found(root)


def test_a_name_of_ten_million_characters_is_cut(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 100},
        {"id": 2, "file_name": "x" * 10_000_000},
    ]
    coco(tmp_path, "", images=images)
    (finding,) = open_dataset(tmp_path).findings
    assert (finding.id, finding.action) == ("VD101", "left out")
    assert len(str(finding)) < 2000
