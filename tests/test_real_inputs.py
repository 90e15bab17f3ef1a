"""What people have, through every verb: doctor, one epoch of training, val and predict agree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COUNT, SIDE = 6, 96
BOX = (20, 30, 70, 80)  # xyxy in pixels of every picture


def picture(path: Path, number: int) -> None:
    """Noise with a red rectangle at BOX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(90, 140, (SIDE, SIDE, 3), dtype=np.uint8)
    x1, y1, x2, y2 = BOX
    pixels[y1:y2, x1:x2] = (220, 40, 40)
    Image.fromarray(pixels).save(path)


def yolo(
    root: Path,
    *,
    image: str = "images/train/{}.png",
    label: str = "labels/train/{}.txt",
    names: str = "[cat]",
    tail: str = "",
    config: str = "",
) -> Path:
    cx, cy = (BOX[0] + BOX[2]) / 2 / SIDE, (BOX[1] + BOX[3]) / 2 / SIDE
    w, h = (BOX[2] - BOX[0]) / SIDE, (BOX[3] - BOX[1]) / SIDE
    for number in range(COUNT):
        picture(root / image.format(number), number)
        file = root / label.format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"0 {cx} {cy} {w} {h}{tail}\n")
    (root / "data.yaml").write_text(f"train: images/train\nnames: {names}\n{config}")
    return root


def voc(root: Path, *, name: str = "cat", codec: str = "utf-8", suffix: str = ".png") -> Path:
    """XML files beside their pictures, as LabelImg leaves them."""
    x1, y1, x2, y2 = BOX
    for number in range(COUNT):
        picture(root / f"{number}{suffix}", number)
        (root / f"{number}.xml").write_bytes(
            f"<?xml version='1.0' encoding='{codec}'?><annotation><object><name>{name}</name>"
            f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            "</bndbox></object></annotation>".encode(codec)
        )
    return root


def coco(root: Path, *, file_name: str = "{}.png", **item: Any) -> Path:
    x1, y1, x2, y2 = BOX
    one = {"category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]} | item
    images, things = [], []
    for number in range(COUNT):
        picture(root / "images" / f"{number}.png", number)
        entry = {"file_name": file_name.format(number), "width": SIDE, "height": SIDE}
        images.append({"id": number, **entry})
        things.append({"id": number + 1, "image_id": number, **one})
    content = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "cat"}]}
    (root / "instances_train.json").write_text(json.dumps(content))
    return root


# What is made, the class name that comes out, and the kinds of fault that the doctor tells of it.
CASES: dict[str, tuple[Callable[[Path], Path], str, set[str]]] = {
    "key points": (
        lambda root: yolo(root, tail=" .3 .4 2 .5 .6 1", config="kpt_shape: [2, 3]\n"),
        "cat",
        {"VD613"},
    ),
    "labels beside": (lambda root: yolo(root, label="images/train/{}.txt"), "cat", set()),
    "labels in capitals": (lambda root: yolo(root, label="labels/train/{}.TXT"), "cat", set()),
    "a name like a truth value": (lambda root: yolo(root, names="[off]"), "off", set()),
    "a name like a number": (lambda root: yolo(root, names="[02146]"), "02146", set()),
    "flat, gb2312": (lambda root: voc(root, name="猫", codec="gb2312"), "猫", set()),
    "bitmaps": (lambda root: voc(root, suffix=".bmp"), "cat", set()),
    "Windows": (lambda root: coco(root, file_name="images\\{}.png"), "cat", set()),
    "two points": (
        lambda root: coco(root, segmentation=[[20, 30, 70, 80]]),
        "cat",
        {"VD501"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_verb_reads_it_alike(run, tmp_path, case):
    make, name, kinds = CASES[case]
    make(tmp_path / "set")
    report = json.loads(run("doctor", "set", "--json").out)
    assert kinds <= set(report["counts"])
    assert (report["images"], report["boxes"]) == (COUNT, COUNT)
    options = ("--epochs", 1, "--imgsz", 96, "--batch", 2, "--workers", 0, "--amp", "off")
    trained = run("train", "--data", "set", "--val", "none", *options)
    assert trained.code == 0, trained.err
    assert (
        f"{COUNT} images to train on, 0 of them without an object; {COUNT} objects" in trained.err
    )
    weights = tmp_path / trained.out.strip()
    told = {kind for kind in kinds if report["counts"][kind] and kind != "VD613"}
    assert all(kind in trained.err for kind in told)
    split = next(iter(report["splits"]))
    judged = run("val", "--data", f"set@{split}", "--weights", weights, "--json")
    assert judged.code == 0, judged.err
    figures = json.loads(judged.out)
    assert figures["per_class"][name]["count"] == COUNT
    assert all(kind in judged.err for kind in told)
    pictures = sorted(p for p in (tmp_path / "set").rglob("0.*") if p.suffix in (".png", ".bmp"))
    found = run("predict", pictures[0], "--weights", weights, "--conf", 0, "--json")
    assert found.code == 0, found.err
    [one] = json.loads(found.out)
    assert {d["label"] for d in one["detections"]} <= {name}
