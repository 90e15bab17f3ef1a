from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.data.formats.yolo import yolo_splits
from vovnet.data.open import open_dataset
from vovnet.data.yaml_file import read_yaml
from vovnet.errors import DataError


def make(root: Path, labels: dict[str, str | None], split: str = "train") -> Path:
    """A folder images/<split> of 40x30 pictures, labels/<split>, and a data.yaml."""
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for stem, text in labels.items():
        Image.new("RGB", (40, 30)).save(root / "images" / split / f"{stem}.png")
        if text is not None:
            (root / "labels" / split / f"{stem}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def refusal(source: Path, split: str = "train", **options) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(source, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_and_images_without_labels(tmp_path):
    make(tmp_path, {"b": "1 0.5 0.5 1 1\n\n0 .25 .5 .5 .2\n", "a": None, "c": ""})
    data = open_dataset(tmp_path, "train")
    assert (data.kind, data.names) == ("yolo", ("cat", "dog"))
    assert [(f.id, f.image, f.action) for f in data.findings] == [("VD606", "a.png", "background")]
    assert [r.path.stem for r in data.records] == ["a", "b", "c"]
    assert [r.image_id for r in data.records] == [1, 2, 3]
    assert [len(r.boxes) for r in data.records] == [0, 2, 0]
    np.testing.assert_allclose(data.records[1].boxes, [[0, 0, 40, 30], [0, 12, 20, 18]], atol=1e-5)
    assert data.records[1].labels.tolist() == [1, 0]
    assert (data.records[1].size, data.records[1].segmentations) == ((30, 40), ())


def test_polygons_become_boxes_and_segmentations(tmp_path):
    make(tmp_path, {"a": "0 0 0 0.5 0 0.5 0.5\n1 0.5 0.5 1 1\n"})
    record = open_dataset(tmp_path, "train").records[0]
    assert record.boxes.tolist() == [[0, 0, 20, 15], [0, 0, 40, 30]]
    assert record.segmentations == ([[0, 0, 20, 0, 20, 15]], [])


def test_size_is_that_of_the_image_as_displayed(tmp_path):
    make(tmp_path, {"a": "0 0.5 0.5 1 1"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / "a.png", exif=exif)
    assert open_dataset(tmp_path, "train").records[0].boxes.tolist() == [[0, 0, 30, 40]]


def test_faults_are_clipped_or_skipped_and_told(tmp_path):
    lines = ["0 0.5 0.5 1", "0 .5 .5 .5 .5 .9", "x 0.5 0.5 1 1", "0.5 0.5 0.5 1 1", "-1 .5 .5 1 1"]
    lines += ["0 nan 0.5 1 1", "0 .5 .5 inf 1", "0 320 240 10 10", "0 .5 .5 0 1", "inf .5 .5 1 1"]
    make(tmp_path, {"a": "\n".join([*lines, "0 1 1 1 1", "1 .5 .5 1.001 1"]), "bad": None})
    (tmp_path / "images" / "train" / "bad.png").write_text("no image")
    data = open_dataset(tmp_path, "train")
    assert len(data) == 1
    assert data.records[0].boxes.shape == (2, 4)
    found = {f.object: f for f in data.findings if f.image == "a.png"}
    assert [found[n].action for n in range(1, 12)] == ["left out"] * 10 + ["clipped"]
    assert [found[n].id for n in range(1, 12)] == [
        *("VD603", "VD603", "VD301", "VD301", "VD301", "VD201", "VD201", "VD208", "VD203"),
        *("VD301", "VD205"),
    ]
    assert ("VD103", "bad.png", "left out") in [(f.id, f.image, f.action) for f in data.findings]
    assert not any("\n" in f.what for f in data.findings)


def test_a_class_without_a_name(tmp_path):
    make(tmp_path, {"a": "0 .5 .5 1 1\n2 .5 .5 1 1"})
    message = refusal(tmp_path)
    assert "VD301 class-unknown: train, a.png, object 2: class 2, but there are 2 names" in message


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: {0: a, 1: b}", ("a", "b")),
        ("names: [a, 1]", ("a", "1")),
        ("nc: 2", ("class_0", "class_1")),
    ],
)
def test_names(tmp_path, text, names):
    make(tmp_path, {"a": None})
    (tmp_path / "data.yaml").write_text(f"train: images/train\n{text}\n")
    assert open_dataset(tmp_path / "data.yaml", "train").names == names


def test_names_of_a_folder_without_yaml(tmp_path):
    make(tmp_path, {"a": "0 .5 .5 1 1"})
    (tmp_path / "data.yaml").unlink()
    assert "no class names" in refusal(tmp_path)
    assert open_dataset(tmp_path, "train", ["x"]).names == ("x",)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert open_dataset(tmp_path, "train").names == ("cat", "dog")


@pytest.mark.parametrize("names", ["[cat, dog, cat]", "{0: a, 1: a}", "[1, '1']"])
def test_names_that_occur_twice(tmp_path, names):
    make(tmp_path, {"a": None})
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    assert "data.yaml: VD303 class-name-twice: class " in refusal(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    assert "VD303 class-name-twice: class 2 has the name of another, 'cat'" in refusal(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "names: [\n",
        "just text",
        "names: 3\ntrain: images/train",
        "names: {1: a, 2: b}\ntrain: images/train",
        "names: [[a]]\ntrain: images/train",
        "train: images/train\na: &a [1, 1]\nb: &b [*a, *a]\nnames: [*b, *b]",
        "!!python/object/apply:os.system ['true']",
        "lr: 2020-13-45",
        "a: !!int ''",
        "a: !!bool perhaps",
        "a: !!timestamp soon",
        f"a: {'9' * 5000}",
        "a: &a {b: 1}\nc: {<<: [*a, *a]}",
        "a: 1\na",
        "{[a]: 1}",
        "\x01",
        "[" * 5000,
    ],
)
def test_bad_yaml(tmp_path, text):
    make(tmp_path, {"a": None})
    (tmp_path / "data.yaml").write_text(text)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'data.yaml'}: ")


def test_read_yaml(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("\ufefflr: 0.1\nwhen: 2020-12-24\nitems: &a [1, x]\nagain: *a\n", "utf-8")
    assert read_yaml(str(file)) == {
        "lr": 0.1,
        "when": date(2020, 12, 24),
        "items": [1, "x"],
        "again": [1, "x"],
    }
    for text, reason in (
        ("a: 1\nroot:x:0:0 secret\n", "bad YAML (could not find expected ':', line 3 column 1)"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: 2020-13-45", "bad YAML (month must be in 1..12"),
        ("a: {<<: {b: 1}}", "merge key << is refused, line 1 column 5"),
        ("a: \x01", "bad YAML (unacceptable character #x0001"),
        ("#" * 1_000_001, "over 1000000 bytes"),
    ):
        file.write_text(text)
        with pytest.raises(DataError) as caught:
            read_yaml(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert reason in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(DataError):
            read_yaml(path)


def test_paths_in_the_yaml(tmp_path):
    root = make(tmp_path / "set", {"a": "0 .5 .5 1 1"})
    here = root / "data.yaml"
    for text in (
        f"path: {root}\ntrain: images/train",
        "path: ../set\ntrain: images/train",
        "path: nowhere\ntrain: images/train",
        "train: ../images/train",
        f"train: [{root}/images/train]",
        "train: images",
    ):
        here.write_text(f"{text}\nnames: [cat]\n")
        record = open_dataset(here, "train").records[0]
        assert (record.path.name, len(record.boxes)) == ("a.png", 1)


def test_paths_that_leave_the_folder_of_the_yaml(tmp_path):
    make(tmp_path / "other", {"a": "0 .5 .5 1 1"})
    (tmp_path / "secret").write_text("root:x:0:0\n")
    root = make(tmp_path / "set", {"a": "0 .5 .5 1 1"})
    (root / "link").symlink_to(tmp_path / "other")
    for text in (
        f"train: {tmp_path}/other/images/train",
        "train: ../other/images/train",
        "train: ../secret",
        "train: [images/train, ../other/images/train]",
        "train: link/images/train",
        "train: images/train\nval: ../secret",
        "path: /\ntrain: images/train",
        "path: ../other\ntrain: images/train",
        "path: link\ntrain: images/train",
        f"path: {tmp_path}\ntrain: set/images/train",
    ):
        (root / "data.yaml").write_text(f"{text}\nnames: [cat]\n")
        message = refusal(root)
        assert "leave the folder of the YAML; move" in message
        assert "root:x" not in message


def test_labels_and_lists_that_leave_the_folder(tmp_path):
    root = make(tmp_path / "set", {"a": "0 .5 .5 1 1"})
    (root / "labels").rename(tmp_path / "labels")
    (root / "labels").symlink_to(tmp_path / "labels")
    assert "leave the folder of the YAML" in refusal(root)
    (root / "data.yaml").unlink()
    assert len(open_dataset(root, "train", ["cat"])) == 1  # a folder may be linked as a whole
    (tmp_path / "secret").write_text("root:x:0:0\n")
    (root / "classes.txt").symlink_to(tmp_path / "secret")
    assert "classes.txt is a link that leaves" in refusal(root)


def test_a_folder_images_above_the_data_set_is_not_meant(tmp_path):
    root = tmp_path / "images" / "set"
    (root / "train").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "train" / "a.png")
    (root / "train" / "a.txt").write_text("0 .5 .5 1 1")
    (root / "data.yaml").write_text("train: train\nnames: [cat]\n")
    assert len(open_dataset(root, "train").records[0].boxes) == 1


def test_a_set_beside_it_is_not_taken_for_roboflows(tmp_path):
    make(tmp_path, {"wrong": None})
    root = make(tmp_path / "set", {"right": None})
    (root / "data.yaml").write_text("train: ../images/train\nnames: [cat]\n")
    assert [r.path.stem for r in open_dataset(root, "train").records] == ["right"]


def test_names_too_long_for_the_file_system(tmp_path):
    long = "x" * 300
    for source in (tmp_path / long, tmp_path / f"{long}.yaml", Path("a\0b")):
        assert refusal(source).endswith("check the path")
    make(tmp_path, {"a": None})
    for key in ("path", "val"):
        (tmp_path / "data.yaml").write_text(f"{key}: {long}\ntrain: images/train\nnames: [a]\n")
        assert list(yolo_splits(tmp_path)[0]) == ["train"]


def test_lists_of_images(tmp_path):
    make(tmp_path, {"a": "0 .5 .5 1 1", "b": None, "c": None})
    places = ["./images/train/b.png", f"{tmp_path.resolve()}/images/train/a.png", "images/gone.png"]
    (tmp_path / "train.txt").write_text("\n".join(places))
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    data = open_dataset(tmp_path, "train")
    assert [(r.path.stem, len(r.boxes)) for r in data.records] == [("b", 0), ("a", 1)]
    assert [(f.id, f.image) for f in data.findings if f.action == "left out"] == [
        ("VD101", "images/gone.png")
    ]
    for outside in ("/etc/x.png", "../x.png"):
        (tmp_path / "train.txt").write_text(outside)
        assert "leaves the data folder" in refusal(tmp_path)


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_folders_without_yaml(tmp_path, layout):
    for split in ("train", "val"):
        images = tmp_path / layout.format(split)
        labels = tmp_path / layout.format(split).replace("images", "labels")
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(images / "a.png")
        (labels / "a.txt").write_text("0 .5 .5 1 1")
    assert set(yolo_splits(tmp_path)[0]) == {"train", "val"}
    assert len(open_dataset(tmp_path, "val", ["cat"]).records[0].boxes) == 1


def test_flat_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 1 1")
    assert list(yolo_splits(tmp_path)[0]) == ["all"]
    assert len(open_dataset(tmp_path, "all", ["cat"]).records[0].boxes) == 1


def test_unknown_and_empty_splits(tmp_path):
    make(tmp_path, {}, "val")
    assert "its YAML names train: 'images/train', which is not there" in refusal(tmp_path, "train")
    assert "Splits that exist: val." in refusal(tmp_path, "test")
    assert "split val has no images" in refusal(tmp_path, "val")


def test_links_may_not_leave_the_folder(tmp_path):
    root = make(tmp_path / "set", {"a": "0 .5 .5 1 1"})
    label = root / "labels" / "train" / "a.txt"
    label.rename(tmp_path / "a.txt")
    label.symlink_to(tmp_path / "a.txt")
    assert "link that leaves" in refusal(root)
    label.unlink()
    image = root / "images" / "train" / "a.png"
    image.rename(tmp_path / "a.png")
    image.symlink_to(tmp_path / "a.png")
    assert "link that leaves" in refusal(root)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.floats() | st.integers(0, 1), max_size=9), max_size=5))
def test_any_numbers_are_read_or_told(tmp_path, lines):
    text = "\n".join("0 " + " ".join(str(value) for value in line) for line in lines)
    data = open_dataset(make(tmp_path, {"a": text}), "train")
    kept = data.records[0].boxes
    assert len(kept) + sum(p.action == "left out" for p in data.findings) == len(lines)
    assert (kept >= 0).all()
    assert (kept <= [40, 30, 40, 30]).all()
