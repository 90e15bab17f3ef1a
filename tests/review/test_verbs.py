"""`val --html`, `--conf` and `--iou`, and the page that a run leaves."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.evaluate import coco_ap
from vovnet.review.kept import load_kept

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "bccd"
SMALL = ("--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off")


def test_val_tells_and_shows_what_it_measured(run, voc, nano, tmp_path):
    options = ("val", "--data", voc, "--weights", nano)
    outcome = run(*options, "--html", "val.html", "--json")
    assert outcome.code == 0, outcome.err
    plain = json.loads(outcome.out)
    assert (plain["conf"], plain["iou"]) == (0.001, 0.6)
    html = (tmp_path / "val.html").read_text(encoding="utf-8")
    assert f"<dd>{voc}, val</dd>" in html
    assert "scores above" in html
    assert f"{plain['map_50']:.3f}" in html
    outcome = run(*options, "--conf", 0.4, "--iou", 0.9, "--json")
    raised = json.loads(outcome.out)
    assert (raised["conf"], raised["iou"]) == (0.4, 0.9)
    assert "AP at --conf 0.4: what scores less is missing" in outcome.err
    assert raised["map_50"] <= plain["map_50"]
    assert raised["ar_100"] < plain["ar_100"]


def test_val_says_before_it_measures_what_it_could_not_write(refused, voc, nano, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "f1.png").touch()
    options = ("val", "--data", "nowhere", "--weights", nano)
    assert "--overwrite to replace it" in refused(*options, "--png", "figures")
    assert "is a folder" in refused(*options, "--html", "figures")


def _as_coco(sets: dict[str, Dataset], root: Path) -> Path:
    """The sets as COCO's instances_SPLIT.json, with pictures in a folder for each split."""
    for split, dataset in sets.items():
        images, annotations = [], []
        for number, record in enumerate(dataset.records, 1):
            shutil.copy(record.path, _made(root / split) / record.path.name)
            height, width = record.size or (0, 0)
            images.append({"id": number, "file_name": record.path.name, "height": height,
                           "width": width})  # fmt: skip
            for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
                x1, y1, x2, y2 = box
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0,
                                    "category_id": label + 1, "area": (x2 - x1) * (y2 - y1),
                                    "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
        categories = [{"id": i, "name": name} for i, name in enumerate(dataset.names, 1)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        path = _made(root / "annotations") / f"instances_{split}.json"
        path.write_text(json.dumps(whole))
    return root


def _as_yolo(sets: dict[str, Dataset], root: Path) -> Path:
    """The sets as images/SPLIT and labels/SPLIT with a data.yaml."""
    for split, dataset in sets.items():
        for record in dataset.records:
            shutil.copy(record.path, _made(root / "images" / split) / record.path.name)
            with Image.open(record.path) as image:
                width, height = image.size
            lines = [
                f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
                f"{(x2 - x1) / width} {(y2 - y1) / height}"
                for (x1, y1, x2, y2), label in zip(
                    record.boxes.tolist(), record.labels.tolist(), strict=True
                )
            ]
            path = _made(root / "labels" / split) / f"{record.path.stem}.txt"
            path.write_text("\n".join(lines))
    names = next(iter(sets.values())).names
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\nnames: [{', '.join(names)}]\n"
    )
    return root


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def cells() -> dict[str, Dataset]:
    """A dozen pictures of blood cells to train on, and six to validate on."""
    if not DATA.is_dir():
        pytest.skip("no shared/data/bccd beside the checkout")
    sets = {split: open_dataset(DATA, split) for split in ("train", "val")}
    many = {"train": 12, "val": 6}
    return {
        split: Dataset(s.root, split, s.kind, s.names, s.records[: many[split]])
        for split, s in sets.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", [_as_coco, _as_yolo])
def test_a_run_evaluates_by_itself_and_leaves_its_page(run, cells, layout, tmp_path):
    data = layout(cells, tmp_path / "cells")
    outcome = run(
        "train", "--data", data, *SMALL, "--epochs", 2, "--weights", "vovdet_nano.voc",
        "--name", "cells",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    folder = Path("runs/train/cells")
    assert f"curves, mistakes and pictures: {folder}/report.html" in outcome.err
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<dd>6 images</dd>" in html
    assert "What the network sees" in html
    assert len(html) < 3_000_000
    with Image.open(folder / "batch.jpg") as picture:
        assert picture.size == (4 * 64, 64)
    # What was kept is what the best weights find.
    kept = load_kept(folder)
    truth = open_dataset(data, "val")
    measured = json.loads(run("val", "--data", data, "--weights", folder, "--json").out)
    ours = coco_ap(kept.found, truth.records, truth.names)
    assert ours.map_50 == pytest.approx(measured["map_50"], abs=1e-3)
    # The page can be made again, as it was.
    assert run("report", folder).code == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == html


@pytest.mark.slow
def test_a_run_without_validation_leaves_no_page(run, voc):
    outcome = run("train", "--data", voc, *SMALL, "--epochs", 1, "--val", "none", "--name", "v")
    assert outcome.code == 0, outcome.err
    assert not Path("runs/train/v/report.html").exists()
    assert Path("runs/train/v/batch.jpg").is_file()
    assert run("report", "runs/train/v").code == 0
    assert '<h2 id="training">' in Path("runs/train/v/report.html").read_text(encoding="utf-8")
