"""The doctor on COCO sets: every fault that can be planted is found, mended, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vovnet.data.doctor import Examined, examine, write_clean_copy
from vovnet.data.masks import record_masks
from vovnet.data.open import open_dataset
from vovnet.errors import DataError

BOX = [4, 4, 20, 20]
SQUARE = [[4, 4, 24, 4, 24, 24, 4, 24]]
# 64x64 with a mask that fills BOX: 4 columns of nothing, then 20 with 4 + 20 + 40 rows.
CODE = {"size": [64, 64], "counts": [4 * 64 + 4, *[20, 44] * 19, 20, 40 + 40 * 64]}


class Set:
    """A COCO set of two splits under construction, and the faults that were planted in it."""

    def __init__(self, root: Path, noise: Callable[..., Path]):
        self.root, self.noise, self.seed = root, noise, 0
        self.content: dict[str, dict[str, list[Any]]] = {
            split: {
                "images": [],
                "annotations": [],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
            for split in ("train", "val")
        }
        self.expected: list[tuple] = []
        for split, count in (("train", 8), ("val", 4)):
            for number in range(count):
                self.image(f"{split}{number}.png", split)
                self.object(split=split, segmentation=SQUARE, area=400)
                self.object(split=split, bbox=[30, 30, 20, 20], category_id=2)

    def image(self, name: str, split: str = "train", *, file: bool = True, **given) -> dict:
        self.seed += 1
        size = given.pop("size", (64, 64))
        if file:
            path = self.root / "images" / split / name
            self.noise(path, self.seed, size, orientation=given.pop("orientation", 1))
        entry = {"id": self.seed, "file_name": name, "width": 64, "height": 64} | given
        self.content[split]["images"].append(entry)
        return entry

    def object(self, split: str = "train", **given) -> int:
        """An annotation of the last image; returns its id."""
        content = self.content[split]
        number = 1 + sum(len(c["annotations"]) for c in self.content.values())
        item = {"id": number, "image_id": content["images"][-1]["id"], "category_id": 1}
        content["annotations"].append(item | {"bbox": BOX, "iscrowd": 0} | given)
        return content["annotations"][-1]["id"]

    def expect(
        self, id_: str, image: str = "", number: int | None = None, split: str = "train"
    ) -> None:
        self.expected.append((id_, split, image, number))

    def write(self) -> "Set":
        for split, content in self.content.items():
            file = self.root / "annotations" / f"instances_{split}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        return self


def plant_objects(data: Set) -> None:
    """All in one image, each at a place of its own."""
    data.image("objects.png")
    far = [[44, 44, 60, 44, 60, 60, 44, 60]]
    faults: list[tuple[str, dict]] = [
        ("VD201", {"bbox": [1, 2, 3]}),
        ("VD201", {"bbox": [1, 2, "3", 4]}),
        ("VD201", {"bbox": [1, 2, float("nan"), 4]}),
        ("VD202", {"bbox": [30, 40, -20, 10]}),
        ("VD203", {"bbox": [5, 5, 0, 10]}),
        ("VD204", {"bbox": [70, 5, 10, 10]}),
        ("VD205", {"bbox": [50, 5, 30, 10]}),
        ("VD207", {"bbox": [0.25, 0.25, 0.5, 0.5]}),
        ("VD209", {"bbox": [9, 9, 1.5, 20]}),
        ("VD210", {"bbox": [0, 0, 64, 64]}),
        ("VD301", {"category_id": 9, "bbox": [3, 4, 20, 20]}),
        ("VD501", {"segmentation": [[1, 2, 3, 4], *SQUARE], "bbox": [4, 5, 20, 20]}),
        ("VD502", {"segmentation": [[1, 2, 3, 4, 5, 6, 7]], "bbox": [5, 4, 20, 20]}),
        ("VD502", {"segmentation": CODE | {"counts": [10]}, "bbox": [4, 4, 21, 20]}),
        ("VD502", {"segmentation": "text", "bbox": [4, 4, 20, 21]}),
        ("VD503", {"segmentation": CODE | {"size": [32, 64]}, "bbox": [4, 4, 22, 20]}),
        ("VD504", {"segmentation": far, "bbox": [40, 40, 10, 10]}),
        ("VD505", {"segmentation": SQUARE, "bbox": [4, 4, 20, 20], "area": 4}),
        ("VD505", {"segmentation": CODE, "bbox": [4, 4, 20, 20.5], "area": 900}),
        ("VD505", {"bbox": [4, 4, 20.5, 20.5], "area": 900}),
        ("VD506", {"segmentation": SQUARE, "bbox": [4, 4.5, 20, 20], "iscrowd": 1}),
    ]
    for id_, given in faults:
        data.expect(id_, "objects.png", data.object(**given))
    data.object(segmentation=CODE, bbox=[4.5, 4, 19.5, 20], area=400)
    data.expect(
        "VD211", "objects.png", data.object(bbox=[3, 3, 9, 9]) and data.object(bbox=[3, 3, 9, 9])
    )
    data.expect("VD212", "objects.png", data.object(bbox=[3, 3, 9, 9], category_id=2))
    many = data.image("many.png")
    for number in range(301):
        data.object(bbox=[number % 30, number // 30, 20, 20])
    data.expect("VD118", many["file_name"])


def plant_images(data: Set) -> None:
    data.image("missing.png", file=False)
    data.object()
    data.expect("VD101", "missing.png")
    data.image("masked.jpg", size=(48, 32), orientation=6, width=48, height=32)
    data.object(segmentation=SQUARE)
    data.expect("VD107", "masked.jpg")
    data.noise(data.root / "images" / "train" / "bare.png", 999)
    data.expect("VD117", "bare.png", split="")
    data.expect("VD609", split="")
    content = data.content["train"]
    first, second = content["images"][:2]
    content["images"].append(first | {"file_name": "same_id.png"})
    data.expect("VD315", first["file_name"])
    data.noise(data.root / "images" / "train" / "same_id.png", 998)
    content["images"].append(second | {"id": 9001})
    data.object(bbox=[40, 40, 20, 20])
    data.expect("VD319", second["file_name"])
    content["images"] += [7, {"id": 9002}]
    data.expect("VD603")
    data.expect("VD603")
    content["images"].append({"id": "x", "file_name": "text_id.png"})
    data.expect("VD317", "text_id.png")
    data.image("../../outside.png", file=False)
    data.expect("VD607", "../../outside.png")


def plant_ids(data: Set) -> None:
    data.image("ids.png")
    data.object(bbox=[1, 1, 20, 20], id=0)
    data.expect("VD313", "ids.png", 0)
    twice = data.object(bbox=[2, 2, 20, 20])
    data.object(bbox=[3, 3, 20, 20], id=twice)
    data.expect("VD314", "ids.png", twice)
    data.object(bbox=[4, 4, 21, 21], id=None)
    data.expect("VD317", "ids.png")
    data.expect("VD318", number=data.object(image_id=12345))
    data.content["train"]["annotations"].append("text")
    data.expect("VD603")


def plant_categories(data: Set) -> None:
    data.content["train"]["categories"] += [
        {"id": 0, "name": "zero"},
        {"id": 2, "name": "again"},
        {"id": 5, "name": " "},
        {"id": 6, "name": "cat"},
        {"id": None, "name": "none"},
        "text",
    ]
    for id_ in ("VD310", "VD316", "VD302", "VD303", "VD317", "VD603", "VD308"):
        data.expect(id_)
    data.expect("VD307", split="val")
    data.expect("VD305", split="")  # zero
    data.expect("VD305", split="")  # class_5


@pytest.fixture(scope="module")
def clean(tmp_path_factory, noise) -> Set:
    return Set(tmp_path_factory.mktemp("coco") / "clean", noise).write()


@pytest.fixture(scope="module")
def broken(tmp_path_factory, noise) -> Set:
    data = Set(tmp_path_factory.mktemp("coco") / "broken", noise)
    for plant in (plant_objects, plant_images, plant_ids, plant_categories):
        plant(data)
    return data.write()


@pytest.fixture(scope="module")
def examined(broken) -> Examined:
    return examine(broken.root)


def rows(examined: Examined) -> list[tuple]:
    found = ((f.id, f.split, f.image, f.object) for f in examined.report.findings)
    return sorted(found, key=str)


def test_a_clean_set_has_no_fault(clean):
    report = examine(clean.root).report
    assert report.findings == ()
    assert (report.layout, report.splits) == ("coco", {"train": 8, "val": 4})


def test_every_planted_fault_is_found_and_nothing_else(broken, examined):
    assert rows(examined) == sorted(broken.expected, key=str)
    assert len(examined.report.counts) >= 35


def test_the_copy_is_clean_and_can_be_read(broken, examined, tmp_path):
    before = {path: path.read_bytes() for path in broken.root.rglob("*") if path.is_file()}
    findings = write_clean_copy(examined, tmp_path / "copy")
    assert {path: path.read_bytes() for path in broken.root.rglob("*") if path.is_file()} == before
    copy = examine(tmp_path / "copy").report
    assert copy.errors == 0
    left = {"VD118", "VD209", "VD210", "VD212", "VD305", "VD504", "VD506", "VD609"}
    assert set(copy.counts) == left
    data = open_dataset(tmp_path / "copy" / "annotations" / "instances_train.json")
    assert [finding for finding in data.findings if finding.action] == []
    assert data.names == ("zero", "cat", "dog", "class_5")
    records = {record.path.name: record for record in data.records}
    assert {"missing.png", "train0.png", "same_id.png"}.isdisjoint(records)
    assert [40, 40, 60, 60] in records["train1.png"].boxes.tolist()
    assert [16, 16, 48, 48] in records["objects.png"].boxes.tolist()
    for record in data.records:
        record_masks(record, record.labels >= 0)
    with Image.open(records["masked.jpg"].path) as image:
        assert (image.size, dict(image.getexif())) == ((48, 32), {})
    done = {(f.id, f.image, f.object): f.done for f in findings}
    assert done["VD315", "train0.png", None] == "image left out"
    assert done["VD313", "ids.png", 0] == "numbered anew"


def test_splits_that_share_images(tmp_path, noise):
    data = Set(tmp_path, noise)
    data.content["fold1"] = json.loads(json.dumps(data.content["val"]))
    data.content["fold2"] = data.content["fold1"]
    del data.content["val"]
    data.write()
    (tmp_path / "images" / "val").rename(tmp_path / "images" / "fold1")
    (tmp_path / "images" / "fold2").symlink_to(tmp_path / "images" / "fold1")
    found = {finding.id: finding for finding in examine(tmp_path).report.findings}
    assert set(found) == {"VD403", "VD405"}
    assert found["VD403"].what == "fold1 and fold2 share 4 images, val0.png first"


def test_one_file_of_a_set_that_shares_its_folder(tmp_path, noise):
    data = Set(tmp_path, noise).write()
    for path in sorted((tmp_path / "images").glob("*/*.png")):
        path.rename(tmp_path / "images" / path.name)
    assert examine(tmp_path).report.counts == {}
    assert examine(tmp_path, ["val"]).report.counts == {}
    report = examine(tmp_path / "annotations" / "instances_train.json").report
    assert report.counts == {"VD405": 1}
    data.noise(tmp_path / "images" / "bare.png", 5000)
    assert examine(tmp_path).report.counts == {"VD117": 1}


def test_classes_out_of_balance(tmp_path, noise):
    data = Set(tmp_path, noise)
    data.content["train"]["categories"].append({"id": 3, "name": "emu"})
    data.content["val"]["categories"].append({"id": 3, "name": "emu"})
    data.object(category_id=3, bbox=[9, 9, 9, 9])
    for index in range(10):
        data.image(f"more{index}.png")
        for number in range(20):
            data.object(bbox=[number, index, 20, 20])
    found = {f.id: f.what for f in examine(data.write().root).report.findings}
    assert set(found) == {"VD306", "VD311", "VD312"}
    assert found["VD311"] == "cat has 212 boxes, emu 1"


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "[" * 50_000])
def test_a_file_that_cannot_be_read(clean, tmp_path, text):
    (tmp_path / "instances_train.json").write_text(text)
    (tmp_path / "instances_val.json").write_text(
        (clean.root / "annotations" / "instances_val.json").read_text()
    )
    (tmp_path / "images").symlink_to(clean.root / "images")
    report = examine(tmp_path).report
    assert "VD601" in report.counts
    assert report.splits == {"val": 4}


def test_a_file_that_holds_everything_twice_is_cleaned_without_loss(tmp_path, noise):
    data = Set(tmp_path / "set", noise)
    content = data.content["train"]
    for key in ("images", "annotations"):
        content[key] += json.loads(json.dumps(content[key]))
    data.write()
    examined = examine(tmp_path / "set")
    assert examined.report.counts == {"VD314": 16, "VD319": 8, "VD211": 16}
    write_clean_copy(examined, tmp_path / "copy")
    copy = examine(tmp_path / "copy").report
    assert (copy.findings, copy.splits, copy.boxes) == ((), {"train": 8, "val": 4}, 24)


def test_boxes_written_as_corners_are_told_once_and_read_as_such(tmp_path, noise):
    data = Set(tmp_path / "set", noise)
    for content in data.content.values():
        for item in content["annotations"]:
            del item["segmentation" if "segmentation" in item else "iscrowd"]
            item["bbox"] = [40, 30, 60, 62] if item["category_id"] == 1 else [1, 2, 21, 30]
            item.pop("area", None)
    data.write()
    examined = examine(tmp_path / "set")
    assert examined.report.counts == {"VD213": 1}
    write_clean_copy(examined, tmp_path / "copy")
    assert examine(tmp_path / "copy").report.findings == ()
    record = open_dataset(tmp_path / "copy" / "annotations" / "instances_val.json").records[0]
    assert sorted(record.boxes.tolist()) == [[1, 2, 21, 30], [40, 30, 60, 62]]


def test_crowds_alone_teach_nothing(tmp_path, noise):
    data = Set(tmp_path / "set", noise)
    for item in data.content["train"]["annotations"]:
        item |= {"iscrowd": 1, "segmentation": CODE, "bbox": BOX}
    examined = examine(data.write().root)
    assert [str(f) for f in examined.report.findings if f.id == "VD408"] == [
        "train: crowds and difficult ones only"
    ]
    write_clean_copy(examined, tmp_path / "copy")
    assert examine(tmp_path / "copy").report.splits == {"val": 4}


def test_a_copy_stays_away_from_the_whole_set_of_a_file(tmp_path, noise):
    root = Set(tmp_path / "set", noise).write().root
    examined = examine(root / "annotations" / "instances_train.json")
    with pytest.raises(DataError, match="lies in the data set"):
        write_clean_copy(examined, root / "images" / "clean")


def test_a_stale_size_is_not_corrected_where_boxes_belie_it(tmp_path, noise):
    data = Set(tmp_path / "set", noise)
    for name, box in (("resized.png", BOX), ("stale.png", [20, 20, 30, 30])):
        data.image(name, width=32, height=32)
        data.object(bbox=box)
    examined = examine(data.write().root)
    assert examined.report.counts["VD106"] == 2
    write_clean_copy(examined, tmp_path / "copy")
    copied = open_dataset(tmp_path / "copy" / "annotations" / "instances_train.json").records
    assert {
        r.path.name: r.boxes.tolist() for r in copied if not r.path.name.startswith("train")
    } == {"resized.png": [[8, 8, 48, 48]]}
