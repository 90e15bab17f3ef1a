"""The weights inside the package: real photographs, the figures they claim, their metadata."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from vovnet.cli import main
from vovnet.models.weights import load_detector, load_metadata
from vovnet.shipped import SHIPPED
from vovnet.train.recipe import read_recipe, recipe_from_dict

DATA = Path(__file__).parents[2] / "shared/data"
RESULTS = Path(__file__).parents[1] / "benchmarks/results"


def _epochs_of(command: str) -> int:
    """The epochs that the committed curve of a training by a recipe has."""
    recipe = Path(next(word for word in command.split() if word.endswith(".yaml")))
    curve = RESULTS / f"train_{recipe.stem}.csv"
    with curve.open(newline="") as file:
        return int([row["epoch"] for row in csv.DictReader(file)][-1])


@pytest.mark.parametrize("name", SHIPPED)
def test_metadata_says_where_weights_come_from(name):
    metadata = load_metadata(SHIPPED[name])
    assert metadata["model"] == name.partition(".")[0]
    assert metadata["licence"]
    assert metadata["command"].startswith("vovnet train")
    recipe = metadata["recipe"]
    assert recipe["model"] == metadata["model"]
    assert metadata["epochs_done"] == _epochs_of(metadata["command"])
    if recipe.get("minutes") is None:  # else the machine made of them what it could
        assert metadata["epochs_done"] == recipe["epochs"]
    assert 0 < metadata["metrics"]["map_50"] < 1
    assert metadata["metrics"]["command"].startswith("vovnet val")
    assert len(metadata["names"]) == len(metadata["category_ids"])


@pytest.mark.parametrize("name", SHIPPED)
def test_its_recipe_means_today_what_it_was_trained_by(name):
    """Defaults too: whoever runs the command again gets the same training."""
    metadata = load_metadata(SHIPPED[name])
    file = next(word for word in metadata["command"].split() if word.endswith(".yaml"))
    recipe = recipe_from_dict(read_recipe(Path(__file__).parents[1] / file)).to_dict()
    by_the_machine = {"val", "val_every", "accumulate", "amp", "workers"}
    for key in metadata["recipe"].keys() - by_the_machine:
        assert recipe[key] == metadata["recipe"][key], key


@pytest.mark.parametrize(
    "weights", ["vovdet_nano.voc", "vovdet_small.voc", "dsod300-vovnet27_slim.voc"]
)
@pytest.mark.parametrize(
    ("picture", "label"),
    [("astronaut", "person"), ("chelsea", "cat"), ("motorcycle_left", "motorbike")],
)
def test_real_photographs(picture, label, weights, capsys):
    options = ["--weights", weights, "--no-save", "--json"]
    assert main(["predict", f"skimage:{picture}", *options]) == 0
    best = json.loads(capsys.readouterr().out)[0]["detections"][0]
    assert best["label"] == label
    assert best["score"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "split"),
    [
        ("dsod300-vovnet27_slim.bccd", "bccd", "test"),
        ("vovdet_nano.voc", "voc2007", "report"),
        ("vovdet_small.voc", "voc2007", "report"),
        ("dsod300-vovnet27_slim.voc", "voc2007", "report"),
        ("maskrcnn-vovnet19_slim.nuclei", "nuclei", "val"),
    ],
)
def test_claimed_accuracy_is_measured_again(name, data, split, capsys):
    if not (DATA / data).is_dir():
        pytest.skip(f"the {data} data set is not beside the project")
    source = str(DATA / data)
    assert main(["val", "--data", source, "--split", split, "--weights", name, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    claimed = load_metadata(SHIPPED[name])["metrics"]
    known = {"map_50", "map_50_95", "voc07_ap", "mask_map_50", "mask_map_50_95"}
    for key in claimed.keys() & known:
        assert figures[key] == pytest.approx(claimed[key], abs=0.005)


def test_drawn_nuclei_are_outlined():
    """Bright blurred discs on dark, as under a fluorescence microscope."""
    centres = [(40 + 58 * i + 7 * (j % 2), 42 + 56 * j) for i in range(4) for j in range(4)]
    picture = Image.new("RGB", (256, 256), (8, 8, 10))
    pen = ImageDraw.Draw(picture)
    for x, y in centres:
        pen.ellipse((x - 11, y - 9, x + 11, y + 9), fill=(120, 120, 120))
    detector = load_detector("maskrcnn-vovnet19_slim.nuclei")
    found = detector.detect([picture.filter(ImageFilter.GaussianBlur(1.5))], conf=0.5)[0]
    rows, columns = np.mgrid[:256, :256] + 0.5
    overlaps = []
    for x, y in centres:
        disc = ((columns - x) / 11) ** 2 + ((rows - y) / 9) ** 2 < 1
        overlaps.append(max((m & disc).sum() / (m | disc).sum() for m in found.masks))
    assert np.mean(np.array(overlaps) > 0.6) > 0.8


def test_weights_without_model_bring_their_own():
    detector = load_detector("dsod300-vovnet27_slim.bccd")
    assert detector.name == "dsod300-vovnet27_slim"
    assert set(detector.names) == {"Platelets", "RBC", "WBC"}


def test_the_list_that_figures_are_reported_on_is_the_committed_one():
    given = DATA / "voc2007" / "ImageSets" / "Main" / "report.txt"
    if not given.exists():
        pytest.skip("needs ../shared/data/voc2007")
    committed = Path(__file__).parents[1] / "recipes" / "lists" / "voc2007-report.txt"
    assert committed.read_text().split() == given.read_text().split()
