"""The page of a run's folder: whole, stopped, without validation, half written, and broken."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from vovnet.data.record import Dataset
from vovnet.errors import VovnetError
from vovnet.review.kept import KEPT, load_kept, save_kept
from vovnet.review.page import page_of_run
from vovnet.review.results import read_results
from vovnet.review.run import read_run

from .conftest import box, found

RECIPE = {"model": "vovdet_nano", "data": ["d@train"], "val": "d@val", "epochs": 3, "zoom": [1, 2],
          "names": ["<b>"], "weights": None}  # fmt: skip
COLUMNS = ("epoch", "lr", "loss_class", "images_per_s", "data_wait", "map_50")
ROWS = [(1, 0.001, 4.0, 10, 0.1, ""), (2, 0.0001, 2.0, 12, 0, 0.5)]


def write_run(folder: Path, rows: int = 2, **recipe: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(RECIPE | recipe))
    with (folder / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS[:rows]])
    return folder


@pytest.fixture
def run_folder(tmp_path, pictured) -> Path:
    """A run of three epochs, the second of which was evaluated."""
    folder = write_run(tmp_path / "a run")
    first = [(box(0, 0), 0, 0.9), (box(70, 70), 0, 0.8)]
    every = [found(first, pictured.names), found([], pictured.names)]
    save_kept(folder, every, pictured.records, pictured.names, 2)
    return folder


def test_what_is_kept_comes_back(run_folder, pictured):
    kept = load_kept(run_folder)
    assert kept is not None
    assert (kept.names, kept.images, kept.epoch) == (("a", "b"), ("1.png", "2.png"), 2)
    assert [len(one) for one in kept.found] == [2, 0]
    np.testing.assert_array_equal(kept.found[0].boxes, [box(0, 0), box(70, 70)])
    assert kept.found[0].scores.tolist() == pytest.approx([0.9, 0.8])
    kept.check(pictured)


def test_the_page_of_a_run(run_folder, pictured):
    (run_folder / "weights").mkdir()
    (run_folder / "weights" / "best.safetensors").touch()
    (run_folder / "state.safetensors").touch()
    page = page_of_run(run_folder, pictured)
    assert page.missing == ()
    facts = dict(page.facts)
    assert (facts["epochs"], facts["weights judged"]) == ("2 of 3", "after epoch 2")
    assert facts["judged by"] == "2 images"
    keys = list(page.drawings())
    assert keys[:5] == ["loss", "accuracy", "rate", "speed", "wait"]
    assert "confusion" in keys
    folder = f"'{run_folder}'"
    assert [command for _, command in page.commands] == [
        f"vovnet train --resume {folder}",
        f"vovnet predict IMAGE --weights {folder} --conf 0.84",
    ]
    html = page.render()
    assert "&lt;b&gt;" in html
    assert "<dt>weights</dt>" not in html


def test_a_run_without_validation_has_its_curves(tmp_path):
    page = page_of_run(write_run(tmp_path / "run", val="none"))
    assert list(page.drawings()) == ["loss", "accuracy", "rate", "speed", "wait"]
    [missing] = page.missing
    assert "no images to validate on" in missing
    assert f"vovnet val --data PATH@SPLIT --weights {tmp_path / 'run'} --html" in missing


def test_a_half_written_run_says_how_to_begin_again(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "results.csv").unlink()
    page = page_of_run(folder)
    assert page.drawings() == {}
    assert page.missing[0] == "No epoch has ended yet, so there are no curves."
    assert "vovnet val --data d@val" in page.missing[1]
    assert page.commands == [
        ("Begin the run again", f"vovnet train --config {folder / 'config.yaml'}")
    ]
    assert "Begin the run again" in page.render()


def test_data_that_are_gone_or_changed_are_told(run_folder, pictured):
    [missing] = page_of_run(run_folder).missing  # "d" is not there
    assert missing.startswith("What was found cannot be shown. d: ")
    fewer = Dataset(pictured.root, "val", "voc", pictured.names, pictured.records[:1])
    [missing] = page_of_run(run_folder, fewer).missing
    assert "holds other images or classes by now. Bring the data back" in missing
    assert "confusion" not in page_of_run(run_folder, fewer).drawings()


def test_numbers_that_are_not_finite_are_not_drawn(tmp_path):
    folder = write_run(tmp_path / "run", val="none")
    text = (folder / "results.csv").read_text().replace("4.0", "nan").replace("2.0", "inf")
    (folder / "results.csv").write_text(text)
    assert "loss" not in page_of_run(folder).drawings()


def test_what_is_no_run_is_refused_in_one_line(refused, tmp_path):
    assert "no such folder; give a run's folder" in refused("report", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no run in it (neither config.yaml nor results.csv)" in refused("report", "empty")
    folder = write_run(tmp_path / "run")
    assert "is a folder" in refused("report", folder, "--html", tmp_path)
    for name, data, said in (
        (KEPT, b"no numbers", "evaluation.npz: damaged"),
        ("results.csv", b"a,b\n1,2\n", "results.csv: not the results of a run (line 2 has no"),
        ("results.csv", b"epoch,lr\n1,fast\n", "not the results of a run (could not convert"),
        ("results.csv", b"\xff\xfe", "not UTF-8 text"),
        ("config.yaml", b"- a", "config.yaml: a recipe is"),
        ("config.yaml", b"a: [", "config.yaml"),
    ):
        write_run(folder)
        (folder / name).write_bytes(data)
        assert said in refused("report", folder)
        (folder / name).unlink()
    assert not (folder / "report.html").exists()


def test_a_damaged_archive_is_told(run_folder):
    path = run_folder / KEPT
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(VovnetError, match="damaged"):
            load_kept(run_folder)
    np.savez(path, counts=np.array([5]), boxes=np.zeros((5, 3)), scores=np.zeros(5),
             labels=np.zeros(5, int), images=["a"], names=["b"], epoch=1)  # fmt: skip
    with pytest.raises(VovnetError, match="damaged"):
        load_kept(run_folder)


def test_results_are_read_as_numbers(tmp_path):
    assert read_results(write_run(tmp_path / "run") / "results.csv")[1] == {
        "epoch": 2, "lr": 1e-4, "loss_class": 2.0, "images_per_s": 12, "data_wait": 0,
        "map_50": 0.5,
    }  # fmt: skip


def test_the_verb(run, run_folder, pictured):
    outcome = run("report", run_folder, "--json")
    assert outcome.code == 0, outcome.err
    assert '"epochs": "2 of 3"' in outcome.out
    outcome = run("report", run_folder, "--html", "other.html")
    assert (outcome.code, outcome.out) == (0, "other.html\n")
    assert "What was found cannot be shown" in outcome.err
    assert (run_folder / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("patience", "unfinished"), [(0, True), (1, False), (2, True)])
def test_a_run_that_patience_ended_is_finished(tmp_path, patience, unfinished):
    folder = write_run(tmp_path / "run", epochs=30, metric="map_50", patience=patience)
    with (folder / "results.csv").open("a") as file:
        file.write("3,0.0001,2.0,12,0,0.4\n")
    assert read_run(folder).unfinished is unfinished
