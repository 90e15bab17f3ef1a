"""Runs from the command line: how they stop, go on, and are named as weights."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from vovnet.errors import WeightsError
from vovnet.models.detector import Detector
from vovnet.models.weights import load_metadata, load_tensors
from vovnet.shipped import weights_path
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.report import EpochReport
from vovnet.train.run import load_run, run_training

SMALL = ("--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off", "--epochs", 1)


def recipe(data: Path, **values) -> Recipe:
    base = {"model": "vovdet_nano", "data": [f"{data}@train"], "epochs": 1, "batch": 4}
    return recipe_from_dict(base | {"imgsz": 64, "amp": "off", "workers": 0} | values)


@pytest.mark.parametrize("module", ["cyclopts", "numpy", "torch.nn", "vovnet.data.record"])
def test_control_c_is_one_word_however_early(tmp_path, module):
    command = [sys.executable, "-X", "importtime", "-m", "vovnet", "train", "--data", "nowhere"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == [
        "vovnet: stopped"
    ]
    assert (process.returncode, out) == (130, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [["--model", "maskrcnn_lite-vovnet19_slim_dw"], ["--imgsz", 65], ["--val", "nowhere"]],
)
def test_a_start_that_fails_leaves_nothing(run, voc, tmp_path, options):
    assert run("train", "--data", f"{voc}@train", *SMALL, *options).code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_says_so_and_how_to_go_on(run, voc, tmp_path):
    assert run("train", "--data", f"{voc}@train", *SMALL, "--name", "a").code == 0
    again = run("train", "--resume", "runs/train/a")
    assert (again.code, again.out) == (0, "runs/train/a\n")
    line, following = again.err.splitlines()[-2:]
    assert following == "vovnet: next: vovnet predict IMAGE --weights runs/train/a"
    assert "runs/train/a: this run is finished" in line
    command = line.rpartition(": vovnet ")[2]
    assert command == "train --resume runs/train/a --epochs N"
    assert run(*command.replace("N", "2").split()).code == 0
    assert load_metadata(tmp_path / "runs/train/a/state.safetensors")["epoch"] == 2


def test_a_run_without_progress_is_finished_too(voc, tmp_path, monkeypatch):
    monkeypatch.setattr("vovnet.train.run.evaluate_together", lambda *_, **__: {"map_50_95": 0.1})
    settings = recipe(voc, epochs=9, val=f"{voc}@val", val_every=1, patience=1)
    assert run_training(settings, tmp_path)["epoch"] == 2
    notes: list[str] = []
    run_training(load_run(tmp_path), tmp_path, resume=True, on_note=notes.append)
    assert notes[-1:] == [
        f"{tmp_path}: this run is finished: 1 evaluations brought nothing better; to train longer, "
        f"begin anew with --weights {tmp_path}"
    ]


class PlugPulledError(Exception):
    """The run ends here."""


def test_a_run_that_has_saved_nothing_says_how_to_begin_again(run, refused, voc, tmp_path):
    def stop(report: EpochReport, steps: int) -> None:
        raise PlugPulledError

    folder = tmp_path / "runs" / "train" / "early"
    with pytest.raises(PlugPulledError):
        run_training(recipe(voc), folder, on_step=stop)
    line = refused("train", "--resume", folder)
    assert f"{folder}: this run ended before it had saved anything" in line
    command = line.rpartition(": vovnet ")[2]
    assert command == f"train --config {folder}/config.yaml"
    assert run(*command.split()).code == 0
    assert "no such folder" in refused("train", "--resume", tmp_path / "runs" / "train" / "other")
    (tmp_path / "empty").mkdir()
    assert "no state.safetensors" in refused("train", "--resume", "empty")
    line = refused("study", "cifar", "--resume", folder)
    assert f": vovnet study cifar --config {folder}/config.yaml" in line


@pytest.fixture(scope="module")
def finished(voc, tmp_path_factory) -> Path:
    """A run's folder with best and last weights."""
    folder = tmp_path_factory.mktemp("finished")
    run_training(recipe(voc, val=f"{voc}@val"), folder)
    return folder


def test_a_runs_folder_means_its_best_weights_else_its_last(finished, tmp_path):
    assert weights_path(finished) == finished / "weights" / "best.safetensors"
    (tmp_path / "weights").mkdir()
    with pytest.raises(WeightsError, match="give a run's folder"):
        weights_path(tmp_path)
    last = tmp_path / "weights" / "last.safetensors"
    last.write_bytes((finished / "weights" / "last.safetensors").read_bytes())
    assert weights_path(tmp_path) == last


def test_every_verb_takes_a_runs_folder(run, voc, finished):
    picture = next((voc / "JPEGImages").iterdir())
    verbs = (
        ("predict", picture, "--weights", finished),
        ("val", "--data", f"{voc}@val", "--weights", finished),
        ("train", "--data", f"{voc}@train", *SMALL, "--weights", finished, "--name", "b"),
        ("count", finished),
        ("bench", finished, "--runtime", "eager", "--seconds", 0.01, "--repeats", 1, "--no-memory"),
    )
    for verb in verbs:
        outcome = run(*verb)
        assert outcome.code == 0, outcome.err
    recorded = yaml.safe_load(Path("runs/train/b/config.yaml").read_text())
    assert recorded["weights"] == str(finished)


@pytest.mark.slow
def test_control_c_in_the_last_evaluation_ends_it_after_a_batch(make_voc, tmp_path, monkeypatch):
    data = make_voc(tmp_path / "voc", train=4, val=20)  # three batches
    settings = recipe(data, val=f"{data}@val")
    run_training(settings, tmp_path / "whole")
    seen, detect = [], Detector.detect

    def interrupted(self: Detector, images: list, *rest: object, **options: object) -> list:
        seen.append(len(images))
        os.kill(os.getpid(), signal.SIGINT)
        return detect(self, images, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Detector, "detect", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_training(settings, tmp_path / "broken")
    assert seen == [8]
    assert not (tmp_path / "broken" / "weights" / "best.safetensors").exists()
    run_training(load_run(tmp_path / "broken"), tmp_path / "broken", resume=True)
    one, other = (
        load_tensors(tmp_path / name / "weights" / "best.safetensors")[0]
        for name in ("whole", "broken")
    )
    assert all((one[key] == other[key]).all() for key in one)
