import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.data.formats import find_source
from vovnet.data.names import merge_datasets, with_names
from vovnet.data.open import default_split, match_split, open_dataset, parse_source
from vovnet.data.record import Dataset, Record
from vovnet.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
XML = """<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>
<ymax>9</ymax></bndbox></object></annotation>"""


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_voc(root: Path, name: str = "aeroplane", splits: tuple[str, ...] = ("train",)) -> Path:
    image(root / "JPEGImages" / "a.jpg")
    write(root / "Annotations" / "a.xml", XML.format(name))
    for split in splits:
        write(root / "ImageSets" / "Main" / f"{split}.txt", "a\n")
    return root


def make_coco(root: Path, *files: str) -> Path:
    image(root / "images" / "a.jpg")
    names = ("airplane", "giraffe", "tv")
    things = [{"image_id": 5, "category_id": c, "bbox": [0, 0, 9, c]} for c in (10, 20, 20)]
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": [t | {"segmentation": [[t["category_id"], 0, 9, 0, 9, 9]]} for t in things],
    }
    for file in files or ("instances_train.json",):
        write(root / file, json.dumps(content))
    return root


def make_yolo(root: Path, splits: tuple[str, ...] = ("train",)) -> Path:
    for split in splits:
        image(root / split / "images" / "a.jpg")
        write(root / split / "labels" / "a.txt", "0 .5 .5 1 1")
    lines = [f"{'val' if split == 'valid' else split}: ../{split}/images" for split in splits]
    write(root / "data.yaml", "\n".join([*lines, "names: [cat]"]))
    return root


def refusal(*args, **options) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_layout_is_found_by_looking(tmp_path):
    voc, coco, yolo = (tmp_path / kind for kind in ("voc", "coco", "yolo"))
    make_voc(voc)
    make_coco(coco)
    make_yolo(yolo)
    assert [open_dataset(path).kind for path in (voc, coco, yolo)] == ["voc", "coco", "yolo"]
    assert open_dataset(str(coco / "instances_train.json")).kind == "coco"
    assert open_dataset(yolo / "data.yaml").kind == "yolo"
    (yolo / "data.yaml").unlink()
    assert find_source(yolo).layout == "yolo"
    assert open_dataset(yolo, names=["dog"]).names == ("dog",)


def test_nothing_that_is_understood(tmp_path):
    write(tmp_path / "pictures" / "notes.txt", "hello")
    assert "no such file or folder" in refusal(tmp_path / "missing")
    for place in ("pictures", "pictures/notes.txt"):
        message = refusal(tmp_path / place)
        assert "understood: VOC" in message
        assert "COCO" in message
    assert "no such file" in refusal("a\0b")


@pytest.mark.parametrize(
    ("asked", "splits", "found"),
    [
        ("val", ("train", "val", "val2017"), "val"),
        ("val", ("train2017", "val2017"), "val2017"),
        ("val", ("train", "valid"), "valid"),
        ("valid", ("train", "val"), "val"),
        ("train", ("train2014", "train2017"), None),
        ("test", ("train", "val"), None),
        ("tr(ain", ("train",), None),
    ],
)
def test_match_split(asked, splits, found):
    assert match_split(asked, splits) == found


def test_default_split():
    assert default_split(("test", "train", "trainval", "val")) == "train"
    assert default_split(("test", "trainval")) == "trainval"
    assert default_split(("fit",)) == "fit"
    assert default_split(("fit", "report")) is None
    assert default_split(("test", "train", "valid"), "val") == "valid"
    assert default_split(("test", "train"), "val") == "test"


def test_splits_that_do_not_exist(tmp_path):
    make_voc(tmp_path / "voc", splits=("fit", "report"))
    make_coco(tmp_path / "coco", "instances_train2017.json", "instances_val2017.json")
    make_yolo(tmp_path / "yolo", ("train", "valid"))
    assert "Did you mean report? Splits" in refusal(tmp_path / "voc", "reprot")
    assert "Splits that exist: fit, report." in refusal(tmp_path / "voc")
    assert "Splits that exist: train2017, val2017." in refusal(tmp_path / "coco", "test")
    assert open_dataset(tmp_path / "coco", "val").split == "val2017"
    assert open_dataset(tmp_path / "yolo", "valid").split == "val"
    assert open_dataset(tmp_path / "yolo", purpose="val").split == "val"
    json_file = tmp_path / "coco" / "instances_val2017.json"
    assert open_dataset(json_file, "val").split == "val2017"
    assert "no split 'train'" in refusal(json_file, "train")


def test_empty_split(tmp_path):
    root = make_voc(tmp_path)
    write(root / "ImageSets" / "Main" / "val.txt", "\n")
    assert "split val has no images" in refusal(root, "val")


def test_names_through_synonyms(tmp_path):
    names = ("dog", "aeroplane", "tvmonitor")
    data = open_dataset(make_coco(tmp_path / "coco"), names=names, drop_unknown=True)
    (record,) = data.records
    assert data.names == names
    assert record.labels.tolist() == [1]
    assert record.boxes.tolist() == [[0, 0, 9, 10]]
    assert record.areas is not None
    assert record.areas.tolist() == [90]
    assert record.segmentations == ([[10, 0, 9, 0, 9, 9]],)
    assert data.category_ids == ()
    told = [(f.id, f.what, f.action) for f in data.findings if f.action]
    assert told == [
        ("VD321", "giraffe, 2 boxes", "left out"),
        ("VD322", f"{tmp_path / 'coco'} has no dog", "background"),
    ]
    voc = open_dataset(make_voc(tmp_path / "voc"), names=("tv", "airplane"))
    assert voc.records[0].labels.tolist() == [1]


def test_category_ids_follow_the_names(tmp_path):
    data = open_dataset(make_coco(tmp_path), names=("tvmonitor", "giraffe", "aeroplane"))
    assert data.category_ids == (30, 20, 10)
    assert data.records[0].labels.tolist() == [2, 1, 1]


def test_unknown_names_are_refused(tmp_path):
    message = refusal(make_coco(tmp_path), names=("airplane", "giraffes", "dog"))
    assert "does not know giraffe (2 boxes) (it knows giraffes); give --weights" in message


def test_classes_without_boxes_need_no_name(tmp_path):
    root = make_yolo(tmp_path)
    write(root / "data.yaml", "train: train/images\nnames: [cat, dog]")
    data = open_dataset(root, names=("cat",))
    assert (data.findings, data.names) == ((), ("cat",))


def test_merge(tmp_path):
    names = ("airplane", "tv")
    coco = open_dataset(make_coco(tmp_path / "coco"), names=names, drop_unknown=True)
    voc = open_dataset(make_voc(tmp_path / "voc"), names=names)
    both = merge_datasets([coco, voc, coco])
    assert (both.kind, both.names, both.split) == ("mixed", names, "train+train+train")
    assert [r.image_id for r in both.records] == [1, 2, 3]
    assert [f.id for f in both.findings if f.action] == ["VD321", "VD322", "VD321"]
    assert both.category_ids == ()
    assert merge_datasets([coco, coco]).category_ids == coco.category_ids == (10, 30)
    for wrong in ([], [coco, open_dataset(tmp_path / "voc")]):
        with pytest.raises(DataError):
            merge_datasets(wrong)


def test_with_the_same_names_nothing_changes():
    none = np.zeros(0, bool)
    record = Record(Path("a"), 1, np.zeros((0, 4), np.float32), np.zeros(0, int), none, none)
    data = Dataset(Path(), "all", "voc", ("a",), (record,))
    assert with_names(data, ["a"]) is data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data/voc", ("data/voc", None)),
        ("data/voc@val", ("data/voc", "val")),
        ("data@home/voc", ("data@home/voc", None)),
        ("data@home/voc@val", ("data@home/voc", "val")),
        ("@val", ("@val", None)),
    ],
)
def test_parse_source(text, expected):
    path, split = parse_source(text)
    assert (path.as_posix(), split) == expected


def test_parse_source_of_what_exists_and_of_nothing(tmp_path):
    (tmp_path / "set@v2").mkdir()
    assert parse_source(str(tmp_path / "set@v2")) == (tmp_path / "set@v2", None)
    with pytest.raises(DataError, match="no split behind the @"):
        parse_source(f"{tmp_path}@")


@pytest.mark.parametrize("suffix", ["", ".json", ".yaml", "/x", "@train"])
def test_names_too_long_for_the_file_system(tmp_path, suffix):
    path, split = parse_source(f"{tmp_path}/{'x' * 300}{suffix}")
    assert "xxx: " in (message := refusal(path, split)) or f"xxx{suffix}: " in message
    assert message.endswith("check the path")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_folders_that_may_not_be_read(tmp_path):
    root = make_voc(tmp_path / "closed" / "voc")
    (tmp_path / "closed").chmod(0)
    try:
        path, _ = parse_source(str(root))
        assert "cannot be read" in refusal(path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_sizes_may_go_unchecked(tmp_path):
    wrong = "<annotation><size><width>9</width><height>9</height></size></annotation>"
    write(make_voc(tmp_path / "voc") / "Annotations" / "a.xml", wrong)
    write(file := make_coco(tmp_path / "coco") / "instances_train.json", "")
    images = [{"id": 5, "file_name": "a.jpg", "width": 9, "height": 9}]
    write(file, json.dumps({"images": images, "categories": [], "annotations": []}))
    for kind in ("voc", "coco"):
        assert "says 9x9" in refusal(tmp_path / kind)
        assert open_dataset(tmp_path / kind, check_sizes=False).records[0].size == (9, 9)


@pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in ("bccd", "coco2017_part", "nuclei", "voc2007")),
    reason="needs the four sets of ../shared/data",
)
def test_real_sets_together():
    voc = open_dataset(SHARED / "voc2007", "fit")
    coco = open_dataset(SHARED / "coco2017_part", names=voc.names, drop_unknown=True)
    both = merge_datasets([voc, coco])
    assert len(both) == 4508 + 2689
    assert len(coco.findings) == 60
    assert open_dataset(SHARED / "bccd", "test").names == ("Platelets", "RBC", "WBC")
    assert open_dataset(SHARED / "nuclei", "val").kind == "coco"
