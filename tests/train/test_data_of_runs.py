"""What a run says of its data, and when it refuses them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.data.census import take_census
from vovnet.data.open import open_dataset
from vovnet.data.overlap import shared_images
from vovnet.data.placing import View
from vovnet.errors import DataError
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import run_training

QUICK = {"model": "vovdet_nano", "batch": 4, "epochs": 1, "imgsz": 64, "amp": "off", "workers": 0}


def coco(root: Path, sizes: list[int], image: tuple[int, int] = (1080, 1920)) -> Path:
    """One picture with square objects of those sides."""
    (root / "images").mkdir(parents=True)
    height, width = image
    Image.new("RGB", (width, height), (90, 120, 90)).save(root / "images" / "a.png")
    things = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [20 * i, 40, side, side]}
        for i, side in enumerate(sizes, start=1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "spot"}],
        "annotations": things,
    }
    (root / "instances_train.json").write_text(json.dumps(content))
    return root


def notes_of(values: dict, folder: Path) -> list[str]:
    notes: list[str] = []
    run_training(recipe_from_dict(QUICK | values), folder, on_note=notes.append)
    return notes


# ---- objects that the input does not show


def test_a_census_by_hand(tmp_path):
    """In 1920x1080 at 256, a side of 15 is 2 pixels: 8 is 1.07, 20 is 2.67, 400 is 53.3."""
    data = open_dataset(coco(tmp_path, [8, 8, 20, 400]))
    census = take_census(data, View((256, 256)), difficult=False)
    assert (census.images, census.background, census.used, census.tiny) == (1, 0, 4, 2)
    assert census.needed == 1920  # 8 pixels for the smallest: 8 / (8 / 1920)
    assert "2 of 4 objects are under 2 pixels in an input of 256x256" in census.lines()[1]
    assert "cut the images into tiles" in census.lines()[1]
    census.check()
    # Stretched to the square, a side of 8 is 1.07 wide and 1.9 high: the smaller counts.
    assert take_census(data, View((256, 256), warp=True), difficult=False).tiny == 2
    assert take_census(data, View((256, 512), warp=True), difficult=False).tiny == 2
    assert take_census(data, View((512, 512)), difficult=False).tiny == 0


def test_the_size_that_would_show_them(tmp_path):
    data = open_dataset(coco(tmp_path, [24] * 80))
    census = take_census(data, View((128, 128)), difficult=False)
    assert (census.tiny, census.needed) == (80, 640)
    with pytest.raises(DataError, match=r"nothing to learn: 80 of 80 .*--imgsz 640 shows 95%"):
        census.check()


def test_training_on_nothing_is_refused(run, tmp_path):
    """80 objects of 8 pixels in 1920x1080 at 256 were trained on with a box loss of 0."""
    coco(tmp_path / "set", [8] * 80)
    outcome = run("train", "--data", "set", "--imgsz", "256", "--epochs", "1", "--val", "none")
    assert (outcome.code, outcome.out) == (2, "")
    assert "nothing to learn" in outcome.err.splitlines()[-1]
    assert "80 of 80 objects are under 2 pixels in an input of 256x256" in outcome.err
    report = json.loads(run("doctor", "set", "--imgsz", "256", "--json").out)
    assert report["counts"]["VD209"] == 80
    assert "VD209" not in json.loads(run("doctor", "set", "--json").out)["counts"]
    model = json.loads(run("doctor", "set", "--model", "vovdet_nano", "--json").out)
    assert model["counts"]["VD209"] == 80


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": []},
        {"annotations": [{"id": 1, "image_id": "1", "category_id": 1, "bbox": [1, 1, 9, 9]}]},
        {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": "1,1,9,9"}]},
    ],
)
def test_a_set_without_a_usable_object_is_refused(run, tmp_path, change):
    file = coco(tmp_path / "set", [400]) / "instances_train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    outcome = run("train", "--data", "set", "--imgsz", "64", "--epochs", "1", "--val", "none")
    assert outcome.code == 2
    line = outcome.err.splitlines()[-1]
    assert "nothing to learn: 1 images to train on, 1 of them without an object; 0 objects" in line


def test_most_objects_lost_is_said_loudly(tmp_path):
    census = take_census(
        open_dataset(coco(tmp_path, [8] * 3 + [400])), View((256, 256)), difficult=False
    )
    assert census.lines()[1].startswith("WARNING: most objects are lost: 3 of 4 objects")
    census.check()


# ---- what is judged by must not have been learned


def test_the_validation_split_that_the_data_have_is_used(make_voc, tmp_path):
    root = make_voc(tmp_path / "voc", train=4, val=2)
    notes = notes_of({"data": [str(root)]}, tmp_path / "run")
    assert f"validated on {root}@val: 2 images" in notes
    assert "map_50" in (tmp_path / "run" / "results.csv").read_text()
    assert (tmp_path / "run" / "weights" / "best.safetensors").is_file()
    assert f"val: {root}@val" in (tmp_path / "run" / "config.yaml").read_text()


def test_faults_of_the_validation_set_are_told(make_voc, tmp_path):
    root = make_voc(tmp_path / "voc", train=4, val=2)
    file = root / "Annotations" / "val00.xml"
    file.write_text(file.read_text().replace("<name>red</name>", "<name></name>"))
    (told,) = [n for n in notes_of({"data": [str(root)]}, tmp_path / "run") if "VD302" in n]
    assert told.startswith("validation: error VD302 class-without-name: 1 left out")


@pytest.mark.parametrize(("train", "val"), [("train", "train"), ("trainval", "val")])
def test_validating_on_images_to_train_on_is_refused(run, make_voc, tmp_path, train, val):
    root = make_voc(tmp_path / "voc", train=4, val=2)
    lists = root / "ImageSets" / "Main"
    text = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "trainval.txt").write_text(text)
    options = ("train", "--data", f"voc@{train}", "--val", f"voc@{val}", "--imgsz", "64")
    count = {"train": 4, "val": 2}[val]
    outcome = run(*options)
    line = outcome.err.splitlines()[-1]
    assert (outcome.code, outcome.out) == (2, "")
    images = f"{count} of the {count} images of voc@{val}"
    assert f"--val: {images} are among those to train on" in line
    assert "--allow-overlap" in line
    assert not (tmp_path / "runs").exists()


def test_overlap_may_be_asked_for(make_voc, tmp_path):
    root = make_voc(tmp_path / "voc", train=4, val=2)
    values = {"data": [f"{root}@train"], "val": f"{root}@train", "allow_overlap": True}
    assert f"validated on {root}@train: 4 images" in notes_of(values, tmp_path / "run")


def test_a_validation_split_of_training_images_is_not_taken_by_itself(make_voc, tmp_path):
    root = make_voc(tmp_path / "voc", train=4, val=2)
    shutil.copy(root / "JPEGImages" / "train00.png", root / "JPEGImages" / "val00.png")
    (told,) = [n for n in notes_of({"data": [str(root)]}, tmp_path / "run") if "validated" in n]
    assert told.startswith(f"not validated: 1 of the 2 images of {root}@val are among those")


def test_shared_images_are_found_by_file_and_by_content(make_voc, tmp_path):
    root = make_voc(tmp_path / "voc", train=3, val=3)
    pictures = root / "JPEGImages"
    shutil.copy(pictures / "train00.png", pictures / "val00.png")
    (pictures / "val01.png").unlink()
    (pictures / "val01.png").symlink_to(pictures / "train01.png")
    found = shared_images(open_dataset(root, "train"), open_dataset(root, "val"))
    assert [(f.id, f.image) for f in found] == [("VD401", "val00.png"), ("VD401", "val01.png")]
    assert f"is {pictures / 'train00.png'} of" in found[0].what
    assert shared_images(open_dataset(root, "train"), open_dataset(root, "train"))[2].image == (
        "train02.png"
    )


def test_a_yaml_whose_validation_is_missing_is_refused(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for folder in ("images/train", "labels/train", "valid/images"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for i in range(4):
        Image.fromarray(pixels + i).save(tmp_path / "set" / "images" / "train" / f"{i}.png")
        (tmp_path / "set" / "labels" / "train" / f"{i}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "set" / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [cat]\n"
    )
    for options in ((), ("--val", "set"), ("--val", "set/data.yaml")):
        outcome = run("train", "--data", "set", "--imgsz", "64", *options)
        line = outcome.err.splitlines()[-1]
        assert outcome.code == 2
        assert "its YAML names val: 'images/val', which is not there" in line


def test_classes_that_only_the_validation_set_has_are_told_at_every_start(run, make_voc, tmp_path):
    coco(tmp_path / "set", [400, 300])
    content = json.loads((tmp_path / "set" / "instances_train.json").read_text())
    Image.new("RGB", (1920, 1080), (10, 120, 90)).save(tmp_path / "set" / "images" / "b.png")
    content["images"] = [content["images"][0] | {"file_name": "b.png"}]
    content["categories"].append({"id": 2, "name": "other"})
    content["annotations"][0]["category_id"] = 2
    (tmp_path / "set" / "instances_val.json").write_text(json.dumps(content))
    (tmp_path / "set" / "images" / "c.png").write_bytes(
        (tmp_path / "set" / "images" / "a.png").read_bytes()
    )
    train = json.loads((tmp_path / "set" / "instances_train.json").read_text())
    train["images"].append(train["images"][0] | {"id": 9, "file_name": "c.png"})
    (tmp_path / "set" / "instances_train.json").write_text(json.dumps(train))
    options = ("--imgsz", "64", "--batch", "2", "--workers", "0", "--amp", "off", "--name", "a")
    first = run("train", "--data", "set", "--epochs", "1", *options)
    assert (first.code, "VD321" in first.err) == (0, True), first.err
    again = run("train", "--resume", "runs/train/a", "--epochs", "2")
    assert (again.code, "VD321" in again.err) == (0, True), again.err
