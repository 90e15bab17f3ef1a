import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.errors import DataError, VovnetError, WeightsError
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.weights import load_detector, load_tensors, save_tensors
from vovnet.train.checkpoint import Progress
from vovnet.train.loop import Run, train
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.report import EpochReport
from vovnet.train.run import load_run, run_training
from vovnet.train.schedule import Length
from vovnet.train.watch import DivergedError

EPOCHS = 4


def recipe(voc: Path, **values) -> Recipe:
    base = {
        "model": "vovdet_nano",
        "data": [f"{voc}@train"],
        "val": "none",
        "val_every": 0,
        "epochs": EPOCHS,
        "batch": 4,
        "accumulate": 2,
        "lr": 6e-3,
        "optimizer": "sgd",  # Muon takes half of the time of networks on images this small
        "imgsz": 64,
        "amp": "off",
        "workers": 0,
        "resolution": [[0.5, 32]],
        "mosaic": [0.5, 0.0, 1.0],
    }
    return recipe_from_dict(base | values)


class StoppedError(Exception):
    """Somebody pulled the plug."""


def run_until(settings: Recipe, folder: Path, epoch: int) -> None:
    """Train, and stop after the first step that follows `epoch` whole epochs."""

    def stop(report: EpochReport, steps: int) -> None:
        if report.epoch == epoch:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_training(settings, folder, on_step=stop)


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of results.csv without what depends on the clock and the memory."""
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    kept = ("epoch", "size", "lr", "loss_", "map_")
    return [{k: v for k, v in row.items() if k.startswith(kept)} for row in found]


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("state.safetensors", "weights/last.safetensors"):
        (tensors, metadata), (others, other) = (load_tensors(f / name) for f in (one, two))
        assert metadata.pop("seconds", 0) > 0 or name != "state.safetensors"
        other.pop("seconds", 0)
        assert metadata == other
        assert tensors.keys() == others.keys()
        different = [key for key, value in tensors.items() if not torch.equal(value, others[key])]
        assert not different
    assert rows(one) == rows(two)


@pytest.fixture(scope="module")
def unbroken(voc, tmp_path_factory) -> Path:
    """A run of four epochs in one go, with validation after the second and the last."""
    folder = tmp_path_factory.mktemp("unbroken")
    torch.set_num_threads(1)
    run_training(recipe(voc, val=f"{voc}@val", val_every=2), folder)
    return folder


def test_the_run_folder(voc, unbroken):
    settings = recipe(voc, val=f"{voc}@val", val_every=2)
    assert sorted(p.relative_to(unbroken).as_posix() for p in unbroken.rglob("*")) == [
        *("batch.jpg", "config.yaml", "evaluation.npz", "report.html", "results.csv"),
        "state.safetensors",
        "weights",
        "weights/best.safetensors",
        "weights/last.safetensors",
        "weights/last_raw.safetensors",
    ]
    settled = replace(settings, threads=torch.get_num_threads())
    assert recipe_from_dict(yaml.safe_load((unbroken / "config.yaml").read_text())) == settled
    assert load_run(unbroken) == settled


def test_results_tell_the_course_of_the_run(unbroken):
    with (unbroken / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    columns = {"epoch", "size", "lr", "loss_class", "loss_box", "map_50", "map_50_95"}
    assert columns | {"images_per_s", "data_wait", "seconds"} <= lines[0].keys()
    assert [line["epoch"] for line in lines] == ["1", "2", "3", "4"]
    assert [line["size"] for line in lines] == ["32", "32", "64", "64"]
    assert all(float(line["loss_class"]) > 0 < float(line["loss_box"]) for line in lines)
    assert all(float(line["images_per_s"]) > 0 < float(line["seconds"]) for line in lines)
    assert all(0 <= float(line["data_wait"]) <= 1 for line in lines)
    assert [line["map_50"] != "" for line in lines] == [False, True, False, True]
    assert all(0 <= float(line["map_50_95"]) <= 1 for line in lines if line["map_50_95"])


def test_weights_carry_what_rebuilds_and_explains_them(voc, unbroken):
    for name, epochs in (("last", {4}), ("best", {2, 4})):
        path = unbroken / "weights" / f"{name}.safetensors"
        detector = load_detector(path)
        assert detector.names == ("blue", "red")
        assert detector.input_spec.size == (64, 64)
        assert detector.metadata["epoch"] in epochs
        assert detector.metadata["recipe"]["data"] == [f"{voc}@train"]


def test_the_average_and_the_weights_themselves_are_saved(unbroken):
    last, _ = load_tensors(unbroken / "weights" / "last.safetensors")
    raw, _ = load_tensors(unbroken / "weights" / "last_raw.safetensors")
    state, _ = load_tensors(unbroken / "state.safetensors")
    assert all(torch.equal(value, state[f"network.{key}"]) for key, value in raw.items())
    assert all(torch.equal(value, state[f"average.{key}"]) for key, value in last.items())
    assert not all(torch.equal(value, state[f"network.{key}"]) for key, value in last.items())


def test_a_resumed_run_equals_an_unbroken_one(voc, unbroken, tmp_path):
    settings = recipe(voc, val=f"{voc}@val", val_every=2)
    run_until(settings, tmp_path, 2)
    assert len(rows(tmp_path)) == 2
    last = run_training(load_run(tmp_path), tmp_path, resume=True)
    assert last["epoch"] == 4
    assert_same_run(tmp_path, unbroken)


def test_a_stop_between_results_and_state_repeats_the_epoch(voc, unbroken, tmp_path):
    def stop(row: dict) -> None:
        if row["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_training(recipe(voc, val=f"{voc}@val", val_every=2), tmp_path, on_row=stop)
    assert len(rows(tmp_path)) == 2
    run_training(load_run(tmp_path), tmp_path, resume=True)
    assert_same_run(tmp_path, unbroken)


def test_a_run_killed_while_it_evaluates_loses_no_step(voc, unbroken, tmp_path, monkeypatch):
    def pull_the_plug(detector: Detector, dataset: Dataset, **_: object) -> dict:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr("vovnet.train.run.evaluate_together", pull_the_plug)
        with pytest.raises(StoppedError):
            run_training(recipe(voc, val=f"{voc}@val", val_every=2), tmp_path)
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert (state["epoch"], state["step"], state["step_of_epoch"]) == (1, 4, 2)
    assert len(rows(tmp_path)) == 1
    run_training(load_run(tmp_path), tmp_path, resume=True)
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_loses_no_step(voc, unbroken, tmp_path, number):
    def ask(report: EpochReport, steps: int) -> None:
        if (report.epoch, report.steps) == (1, 1):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    settings = recipe(voc, val=f"{voc}@val", val_every=2)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, tmp_path, on_step=ask)
    assert signal.getsignal(number) is before
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert (state["epoch"], state["step"], state["step_of_epoch"]) == (1, 3, 1)
    run_training(load_run(tmp_path), tmp_path, resume=True)
    assert_same_run(tmp_path, unbroken)


def test_states_are_saved_by_the_clock_within_an_epoch(voc, tmp_path):
    def stop(report: EpochReport, steps: int) -> None:
        if report.steps == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_training(recipe(voc, save_minutes=1e-9), tmp_path, on_step=stop)
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert (state["epoch"], state["step"]) == (0, 1)


def test_a_run_of_so_many_steps_ends_there(voc, tmp_path):
    run_training(recipe(voc, epochs=None, steps=3), tmp_path)
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert state["step"] == 3
    assert len(rows(tmp_path)) == 2


def stopped_in_its_second_step(settings: Recipe, folder: Path) -> None:
    """A run of which one step is saved."""

    def stop(report: EpochReport, steps: int) -> None:
        if report.steps == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_training(replace(settings, save_minutes=1e-9), folder, on_step=stop)


def test_a_run_cut_short_on_the_way_still_ends_its_epoch(voc, tmp_path):
    stopped_in_its_second_step(recipe(voc), tmp_path)
    shorter = replace(load_run(tmp_path), epochs=None, steps=1, val=f"{voc}@val")
    row = run_training(shorter, tmp_path, resume=True)
    assert (row["epoch"], len(rows(tmp_path))) == (1, 1)
    assert row["map_50"] >= 0
    assert load_detector(tmp_path / "weights" / "last.safetensors").metadata["epoch"] == 1


def test_an_epoch_taken_up_again_counts_its_seconds_once(voc, tmp_path):
    stopped_in_its_second_step(recipe(voc), tmp_path)
    row = run_training(replace(load_run(tmp_path), epochs=1), tmp_path, resume=True)
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert state["seconds"] == pytest.approx(row["seconds"], abs=0.006)  # rounded to hundredths


def test_a_run_does_not_go_on_with_other_images(make_voc, tmp_path):
    data = make_voc(tmp_path / "voc", train=8, val=1)
    stopped_in_its_second_step(recipe(data), tmp_path / "run")
    make_voc(data, train=3, val=1)
    folder = tmp_path / "run"
    config = (folder / "config.yaml").read_bytes()
    with pytest.raises(DataError, match="had 8 images when the run began, and have 3 now"):
        run_training(load_run(folder), folder, resume=True)
    assert (folder / "config.yaml").read_bytes() == config  # a batch of 4 is not what 3 allow


@pytest.mark.parametrize(("word", "other"), [("red", "amber"), ("train03", "val00")])
def test_nor_with_as_many_others(make_voc, tmp_path, word, other):
    data = make_voc(tmp_path / "voc", train=8, val=1)
    stopped_in_its_second_step(recipe(data), tmp_path / "run")
    for path in (*data.glob("Annotations/*.xml"), data / "ImageSets" / "Main" / "train.txt"):
        path.write_text(path.read_text().replace(word, other))
    with pytest.raises(DataError, match="had other images, classes or finds of a teacher when"):
        run_training(load_run(tmp_path / "run"), tmp_path / "run", resume=True)


def test_a_state_that_an_older_version_wrote_goes_on(voc, tmp_path):
    run_until(recipe(voc), tmp_path, 1)
    path = tmp_path / "state.safetensors"
    tensors, metadata = load_tensors(path)
    assert metadata.pop("watch")["steps"] == metadata["step"]
    expected = metadata.pop("data")
    save_tensors(path, tensors, metadata)
    for epochs in (2, 3):
        run_training(replace(load_run(tmp_path), epochs=epochs), tmp_path, resume=True)
        _, metadata = load_tensors(path)
        assert (metadata["epoch"], metadata["data"]) == (epochs, expected)


def test_an_epoch_taken_up_again_by_the_clock_keeps_its_size(voc, tmp_path):
    detector, settings = detector_for(voc, epochs=None, minutes=0.05, resolution=[[0.5, 32]])
    progress = Progress(step=5, seconds=2.5, step_of_epoch=3, report={"seconds": 2.4})
    run = Run(detector, settings, tmp_path, None, None, None, Length(seconds=3.0), progress, [])
    assert run.share > 0.8
    assert run.plan.size == 32
    run.progress = Progress(step=5, seconds=2.0)  # at its beginning, two thirds are done
    assert run.plan.size == 64


def test_fewer_images_than_a_step_wants_are_a_smaller_step(voc, tmp_path):
    row = run_training(recipe(voc, batch=32, accumulate=2, epochs=2), tmp_path)
    assert (row["epoch"], load_run(tmp_path).batch) == (2, 8)


def test_a_run_by_the_clock_ends_when_the_time_is_out(voc, tmp_path):
    settings = recipe(voc, epochs=None, minutes=0.02, warmup=2, val=f"{voc}@val")
    rates: list[float] = []
    row = run_training(settings, tmp_path, on_step=lambda report, _: rates.append(report.lr))
    assert rates[0] == pytest.approx(6e-4)  # no step adds more than a tenth of the peak
    assert float(row["map_50"]) >= 0
    _, state = load_tensors(tmp_path / "state.safetensors")
    assert 1.2 <= state["seconds"] < 60
    assert run_training(load_run(tmp_path), tmp_path, resume=True)["epoch"] == row["epoch"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        *({"optimizer": "muon"}, {"optimizer": "adamw", "lr": 2e-3}),
        {"optimizer": "sgd", "schedule": "multistep", "milestones": [0.5], "nesterov": True},
        {"augment": "ssd"},
        {"freeze": ["backbone"], "ema_decay": 0},
    ],
)
def test_so_does_one_with_another_optimizer_or_augmentation(voc, tmp_path, values):
    settings = recipe(voc, epochs=2, **values)
    run_training(settings, tmp_path / "whole")
    assert not (tmp_path / "whole" / "weights" / "best.safetensors").exists()  # no val, no best
    run_until(settings, tmp_path / "parts", 1)
    run_training(settings, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_the_best_weights_stay_until_they_are_beaten(voc, tmp_path, monkeypatch):
    scores = iter([0.0, 0.5, 0.4, 0.5, 0.6])  # an equal one is no better

    def measured(detector: Detector, dataset: Dataset, **_: object) -> dict:
        return {"map_50_95": next(scores)}

    monkeypatch.setattr("vovnet.train.run.evaluate_together", measured)
    best = tmp_path / "weights" / "best.safetensors"
    settings = recipe(voc, epochs=4, val=f"{voc}@val", val_every=1)
    found = []

    def look(row: dict) -> None:
        found.append(load_detector(best).metadata["epoch"])
        if len(found) == 3:  # epoch 3 is done again by a resumed run, which knows what came before
            raise StoppedError

    with pytest.raises(StoppedError):
        run_training(settings, tmp_path, on_row=look)
    run_training(settings, tmp_path, resume=True, on_row=look)
    assert found == [1, 2, 2, 2, 4]
    assert [row["map_50_95"] for row in rows(tmp_path)] == ["0.0", "0.5", "0.5", "0.6"]


def test_a_run_without_progress_stops_early_and_stays_stopped(voc, tmp_path, monkeypatch):
    scores = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(
        "vovnet.train.run.evaluate_together", lambda *_, **__: {"map_50": next(scores)}
    )
    settings = recipe(voc, epochs=9, val=f"{voc}@val", val_every=1, patience=2, metric="map_50")
    assert run_training(settings, tmp_path)["epoch"] == 3
    notes: list[str] = []
    assert run_training(settings, tmp_path, resume=True, on_note=notes.append)["epoch"] == 3
    assert "this run is finished: 2 evaluations brought nothing better" in notes[-1]
    assert load_detector(tmp_path / "weights" / "best.safetensors").metadata["epoch"] == 1


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "vovnet", "train", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(voc, unbroken, tmp_path):
    config = tmp_path / "config.yaml"
    settings = recipe(voc, val=f"{voc}@val", val_every=2)
    config.write_text(yaml.safe_dump(settings.to_dict()))
    folder = tmp_path / "runs" / "train" / "killed"
    process = subprocess.Popen(
        command("--config", config, "--name", "killed"), cwd=tmp_path, env=environment()
    )
    try:
        while not (folder / "state.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(rows(folder)) < EPOCHS
    done = subprocess.run(
        command("--resume", folder), cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder)
    assert_same_run(folder, unbroken)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(unbroken, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    before[folder / "results.csv"] = (folder / "results.csv").read_bytes()
    done = subprocess.run(
        command("--resume", folder, "--epochs", str(EPOCHS + 1)),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit_file_size,
    )
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "state.safetensors: cannot write: File too large; the previous file is kept" in line
    assert {p: p.read_bytes() for p in before} == before
    left = {p.name for p in folder.rglob("*") if p.is_file()}
    others = {"config.yaml", "batch.jpg", "evaluation.npz", "report.html"}
    assert left == {p.name for p in before} | others
    # And with room again, the run goes on from there.
    settings = replace(load_run(folder), epochs=EPOCHS + 1)
    assert run_training(settings, folder, resume=True)["epoch"] == EPOCHS + 1
    assert len(rows(folder)) == EPOCHS + 1


def detector_for(voc: Path, **values) -> tuple[Detector, Recipe]:
    torch.manual_seed(0)
    detector = create_detector("vovdet_nano", open_dataset(voc, "train").names)
    detector.input_spec = detector.input_spec.with_side(64, "vovdet_nano")
    return detector, recipe(voc, **values)


def test_a_small_training_lowers_the_loss(voc, tmp_path):
    still = {"zoom": [1.0, 1.0], "mosaic": [0.0, 0.0, 0.0], "flip": 0.0, "resolution": []}
    detector, settings = detector_for(voc, epochs=8, optimizer="muon", lr=0.02, **still)
    losses, steps = [], []
    train(
        detector,
        open_dataset(voc, "train"),
        settings,
        tmp_path,
        on_step=lambda report, total: steps.append((report.steps, total)),
        on_epoch=lambda report, *_: losses.append(sum(report.losses.values())),
    )
    assert len(losses) == 8
    assert steps == [(1, 2), (2, 2)] * 8
    assert losses[-1] < 0.7 * losses[0]


def test_pictures_without_objects_train(make_voc, tmp_path):
    empty = make_voc(tmp_path / "voc", train=4, val=1, empty=True)
    detector, settings = detector_for(empty, epochs=2, lr=1e-3, resolution=[])
    reports = []
    train(
        detector,
        open_dataset(empty, "train"),
        settings,
        tmp_path,
        on_epoch=lambda report, *_: reports.append(report),
    )
    assert [report.losses["box"] for report in reports] == [0.0, 0.0]
    assert reports[1].losses["class"] < reports[0].losses["class"] < float("inf")
    assert all(value.isfinite().all() for value in detector.state_dict().values())


def test_a_term_that_diverges_is_named_and_spoils_nothing(voc, tmp_path):
    detector, settings = detector_for(voc)
    with torch.no_grad():
        detector.network.heads[0].classes[-1].bias.fill_(float("nan"))
    before = {name: p.detach().clone() for name, p in detector.network.named_parameters()}
    with pytest.raises(DivergedError, match=r"loss term 'class' became nan in epoch 1, step 1"):
        train(detector, open_dataset(voc, "train"), settings, tmp_path)
    for name, parameter in detector.network.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num()), name
    assert list(tmp_path.rglob("*")) == []


def test_the_state_of_another_model_is_refused(voc, unbroken, tmp_path):
    dataset = open_dataset(voc, "train")
    for names in (("a", "b", "c"), ("a",)):
        other = create_detector("vovdet_nano", names)
        shutil.copy(unbroken / "state.safetensors", tmp_path)
        with pytest.raises(WeightsError, match=r"state\.safetensors: not the state of this model"):
            train(other, dataset, recipe(voc), tmp_path, resume=True)
    shutil.copy(unbroken / "weights" / "last.safetensors", tmp_path / "state.safetensors")
    with pytest.raises(WeightsError, match="not the state of this model"):
        train(detector_for(voc)[0], dataset, recipe(voc), tmp_path, resume=True)


def test_a_folder_without_a_state_is_no_run(tmp_path):
    with pytest.raises(VovnetError, match=r"no state\.safetensors to resume from"):
        load_run(tmp_path)


def test_bf16_training_stays_finite(voc, tmp_path):
    detector, settings = detector_for(voc, epochs=1, amp="bf16")
    train(detector, open_dataset(voc, "train"), settings, tmp_path)
    tensors, _ = load_tensors(tmp_path / "state.safetensors")
    assert all(value.isfinite().all() for value in tensors.values())
    assert {value.dtype for value in tensors.values()} == {torch.float32, torch.int64}
