"""Sets that can be taken for two things: what is meant wins, and what stays in doubt is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vovnet.data.doctor import examine
from vovnet.data.formats import find_source
from vovnet.data.open import open_dataset
from vovnet.errors import DataError

XML = (
    "<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
    "<ymax>9</ymax></bndbox></object></annotation>"
)


def picture(path: Path, level: int = 90, size: tuple[int, int] = (100, 100)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 120, 90)).save(path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def yolo(root: Path, config: str = "", line: str = "0 .5 .5 .2 .2") -> Path:
    picture(root / "images" / "train" / "a.jpg")
    write(root / "labels" / "train" / "a.txt", line + "\n")
    write(root / "data.yaml", f"train: images/train\nnames: [cat, dog]\n{config}")
    return root


def coco(root: Path, names: list[str], split: str = "train", boxes: int = 1) -> Path:
    """The k-th of an image's `boxes` is wider by k times its number: only the first are alike."""
    images = [
        {"id": i, "file_name": name, "width": 100, "height": 100}
        for i, name in enumerate(names, start=1)
    ]
    things = [
        {"id": 10 * i + k, "image_id": i, "category_id": 1, "bbox": [1, 1, 9 + k * i, 9]}
        for i in range(1, len(names) + 1)
        for k in range(boxes)
    ]
    content: dict[str, Any] = {"images": images, "annotations": things}
    content["categories"] = [{"id": 1, "name": "cat"}]
    return write(root / f"instances_{split}.json", json.dumps(content))


def refusal(*args: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(*args)
    return str(caught.value)


def test_a_yaml_wins_over_xml_files_that_lie_around(tmp_path):
    yolo(tmp_path)
    picture(tmp_path / "old_labelimg" / "z.jpg")
    write(tmp_path / "old_labelimg" / "z.xml", XML.format("zebra"))
    assert find_source(tmp_path).layout == "yolo"
    picture(tmp_path / "coco" / "old" / "z.jpg")
    write(tmp_path / "coco" / "old" / "z.xml", XML.format("zebra"))
    picture(tmp_path / "coco" / "images" / "a.jpg")
    coco(tmp_path / "coco", ["a.jpg"])
    assert find_source(tmp_path / "coco").layout == "coco"


def test_xml_that_annotates_nothing_is_no_annotation(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path / "train" / "a.xml", "<?xml version='1.0'?><MD_Metadata/>")
    write(tmp_path / "train" / "a.txt", "0 .5 .5 .2 .2\n")
    write(tmp_path / "classes.txt", "cat\n")
    assert find_source(tmp_path).layout == "yolo"


def test_cocos_file_in_a_folder_called_annotations(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path / "Annotations", ["a.jpg"])
    assert len(open_dataset(tmp_path)) == 1
    (tmp_path / "empty" / "Annotations").mkdir(parents=True)
    picture(tmp_path / "empty" / "images" / "a.jpg")
    coco(tmp_path / "empty", ["a.jpg"])
    assert find_source(tmp_path / "empty").layout == "coco"


def test_an_id_that_ends_like_a_mark(tmp_path):
    for level, stem in enumerate(("photo", "photo 0", "photo 1")):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg", level)
        write(tmp_path / "Annotations" / f"{stem}.xml", XML.format("cat"))
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "photo 0\nphoto 1\n")
    stems = [record.path.stem for record in open_dataset(tmp_path, "train").records]
    assert stems == ["photo 0", "photo 1"]


def test_annotations_in_subfolders_of_a_set_without_lists(tmp_path):
    for stem, name in (("a", "cat"), ("s/b", "dog")):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        write(tmp_path / "Annotations" / f"{stem}.xml", XML.format(name))
    data = open_dataset(tmp_path)
    assert (len(data), data.names) == (2, ("cat", "dog"))


@pytest.mark.parametrize("names", [["a.jpg", "A.jpg"], ["a.jpg", "./a.jpg", "images/a.jpg"]])
def test_one_file_under_two_names_is_one_image_or_refused(tmp_path, names):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, names)
    data = open_dataset(tmp_path)
    assert len(data) == 1
    assert [(f.id, f.action) for f in data.findings] == [("VD319", "left out")] * (len(names) - 1)
    coco(tmp_path, names, boxes=2)
    assert "is the file of a.jpg too, with other objects" in refusal(tmp_path)
    assert "VD115" in examine(tmp_path, workers=1).report.counts


@pytest.mark.parametrize("places", ["[images/train, images/train]", "[images, images/train]"])
def test_a_folder_that_is_named_twice_counts_once(tmp_path, places):
    yolo(tmp_path)
    write(tmp_path / "data.yaml", f"train: {places}\nnames: [cat, dog]\n")
    assert len(open_dataset(tmp_path)) == 1


def test_pictures_of_a_splits_own_folder_come_first(tmp_path):
    picture(tmp_path / "images" / "000.jpg", 1)
    picture(tmp_path / "val" / "000.jpg", 2)
    coco(tmp_path, ["000.jpg"], "val")
    assert open_dataset(tmp_path, "val").records[0].path == tmp_path / "val" / "000.jpg"


def test_visibilities_of_1_throughout_are_no_polygon(tmp_path):
    yolo(tmp_path, line="0 .3 .4 .2 .3 .3 .4 1 .5 .6 1 .7 .8 1 .9 1 1")
    (finding,) = [f for f in open_dataset(tmp_path).findings if f.action]
    assert (finding.id, finding.action) == ("VD611", "left out")


@pytest.mark.parametrize("task", ["obb", "segment"])
def test_a_yaml_says_that_lines_are_outlines(tmp_path, task):
    """Thirty oriented boxes near the middle, whose corners look like points in a box."""
    rng = np.random.default_rng(0)
    corners = [(0.45, 0.45), (0.55, 0.47), (0.53, 0.57), (0.43, 0.55)]
    lines = []
    for shift in rng.uniform(0, 0.03, 30):
        lines.append("0 " + " ".join(f"{v + shift:.4f}" for point in corners for v in point))
    yolo(tmp_path, line="\n".join(lines))
    assert "or task: segment or obb" in refusal(tmp_path)
    yolo(tmp_path, f"task: {task}\n", line="\n".join(lines))
    (record,) = open_dataset(tmp_path).records
    assert len(record.boxes) == 30
    np.testing.assert_allclose(record.boxes[:, 2] - record.boxes[:, 0], 12, atol=0.02)


def test_a_validation_split_called_validation(tmp_path):
    yolo(tmp_path, "validation: images/val\n")
    assert "its YAML names validation: 'images/val'" in refusal(tmp_path, "val")
    picture(tmp_path / "images" / "val" / "b.jpg")
    assert len(open_dataset(tmp_path, "val")) == 1


@pytest.mark.parametrize("text", ["names: {0: car, 0: dog}", "names: [a]\ntrain: images/train"])
def test_a_key_that_comes_twice_is_refused(tmp_path, text):
    yolo(tmp_path)
    write(tmp_path / "data.yaml", f"train: images/train\n{text}\n")
    assert "comes twice" in refusal(tmp_path)


def test_pictures_in_linked_folders(tmp_path):
    yolo(tmp_path)
    picture(tmp_path / "store" / "b.jpg", 7)
    (tmp_path / "images" / "train" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "images" / "train" / "loop").symlink_to(tmp_path / "images" / "train")
    assert {r.path.name for r in open_dataset(tmp_path).records} == {"a.jpg", "b.jpg"}


def test_a_picture_too_large_to_open_is_told_at_once(tmp_path):
    yolo(tmp_path)
    Image.new("1", (9000, 8000)).save(tmp_path / "images" / "train" / "huge.png")
    told = [(f.id, f.image, f.action) for f in open_dataset(tmp_path).findings]
    assert ("VD105", "huge.png", "left out") in told


def test_a_byte_order_mark_beside_another_encoding(tmp_path):
    picture(tmp_path / "a.jpg")
    xml = f"<?xml version='1.0' encoding='gb2312'?>{XML.format('é')}"
    (tmp_path / "a.xml").write_bytes(xml.encode("utf-8-sig"))
    assert open_dataset(tmp_path).names == ("é",)


def test_names_lose_the_spaces_around_them_in_every_layout(tmp_path):
    yolo(tmp_path / "yolo")
    write(tmp_path / "yolo" / "data.yaml", "train: images/train\nnames: [' cat ', dog]\n")
    picture(tmp_path / "coco" / "images" / "a.jpg")
    file = coco(tmp_path / "coco", ["a.jpg"])
    file.write_text(file.read_text().replace('"cat"', '" cat "'))
    picture(tmp_path / "voc" / "a.jpg")
    write(tmp_path / "voc" / "a.xml", XML.format(" cat "))
    names = [open_dataset(tmp_path / layout).names[0] for layout in ("yolo", "coco", "voc")]
    assert names == ["cat"] * 3


@pytest.mark.timeout(60)  # both were quadratic, and did not end
def test_deep_names_and_many_classes_end(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    coco(tmp_path, ["a.jpg", "a/" * 5000 + "b.jpg", "a/" * 60 + "b.jpg"])
    assert len(open_dataset(tmp_path)) == 1
    yolo(tmp_path / "many")
    names = ", ".join(f"class{i}" for i in range(50_000))
    write(tmp_path / "many" / "data.yaml", f"train: images/train\nnames: [{names}]\n")
    assert len(open_dataset(tmp_path / "many").names) == 50_000
