"""The weights inside the package: real photographs, the figures they claim, their metadata."""

import json
from pathlib import Path

import pytest

from vovnet.cli import main
from vovnet.models.weights import SHIPPED, load_detector, load_metadata

DATA = Path(__file__).parents[2] / "shared/data"


@pytest.mark.parametrize("name", SHIPPED)
def test_metadata_says_where_weights_come_from(name):
    metadata = load_metadata(SHIPPED[name])
    assert metadata["model"] == name.partition(".")[0]
    assert metadata["licence"]
    assert metadata["command"].startswith("vovnet train")
    assert metadata["recipe"]["model"] == metadata["model"]
    assert metadata["epochs_done"] == metadata["recipe"]["epochs"]
    assert 0 < metadata["metrics"]["map_50"] < 1
    assert metadata["metrics"]["command"].startswith("vovnet val")
    assert len(metadata["names"]) == len(metadata["category_ids"])


@pytest.mark.parametrize(
    ("picture", "label"),
    [("astronaut", "person"), ("chelsea", "cat"), ("motorcycle_left", "motorbike")],
)
def test_real_photographs(picture, label, capsys):
    assert main(["predict", f"skimage:{picture}", "--no-save", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)[0]["detections"][0]
    assert best["label"] == label
    assert best["score"] > 0.5


@pytest.mark.parametrize(
    ("name", "data", "split"),
    [
        ("dsod300-vovnet27_slim.bccd", "bccd", "test"),
        ("vovdet_nano.voc", "voc2007", "report"),
    ],
)
def test_claimed_accuracy_is_measured_again(name, data, split, capsys):
    if not (DATA / data).is_dir():
        pytest.skip(f"the {data} data set is not beside the project")
    source = str(DATA / data)
    assert main(["val", "--data", source, "--split", split, "--weights", name, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    claimed = load_metadata(SHIPPED[name])["metrics"]
    for key in ("map_50", "map_50_95", "voc07_ap"):
        assert figures[key] == pytest.approx(claimed[key], abs=0.005)


def test_weights_without_model_bring_their_own():
    detector = load_detector("dsod300-vovnet27_slim.bccd")
    assert detector.name == "dsod300-vovnet27_slim"
    assert set(detector.names) == {"Platelets", "RBC", "WBC"}
