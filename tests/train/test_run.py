"""Runs that begin from other weights, leave things open, or compile their network."""

import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vovnet.data.open import open_dataset
from vovnet.errors import VovnetError, WeightsError
from vovnet.models.weights import load_detector, load_tensors
from vovnet.train.data import open_training_data
from vovnet.train.defaults import settle
from vovnet.train.recipe import Recipe, read_recipe, recipe_from_dict
from vovnet.train.run import _detector, _keep_recipe, load_run, run_training


def recipe(voc: Path, **values) -> Recipe:
    base = {
        "val": "none",
        "batch": 4,
        "epochs": 1,
        "lr": 6e-3,
        "imgsz": 64,
        "amp": "off",
        "accumulate": 1,
        "workers": 0,
    }
    return recipe_from_dict({"model": "vovdet_nano", "data": [f"{voc}@train"], **base, **values})


def test_fine_tuning_says_what_is_kept_and_leaves_frozen_parts_alone(voc, tmp_path):
    notes: list[str] = []
    settings = recipe(voc, weights="vovdet_nano.voc", freeze=["backbone"])
    run_training(settings, tmp_path, on_note=notes.append)
    [line] = [note for note in notes if note.startswith("vovdet_nano.voc: ")]
    assert "begun anew: heads.0.classes.2, heads.1.classes.2, heads.2.classes.2" in line
    shipped = load_detector("vovdet_nano.voc").network.state_dict()
    for name in ("last", "last_raw"):
        tensors, _ = load_tensors(tmp_path / "weights" / f"{name}.safetensors")
        same = {key for key, value in tensors.items() if torch.equal(value, shipped[key])}
        assert {key for key in tensors if key.startswith("backbone.")} <= same
        assert not any(key.startswith("neck.") and key.endswith("conv.weight") for key in same)


def test_a_single_frozen_norm_stays_as_it_is_among_processes_too(voc, tmp_path):
    part = "backbone.stem.0.bn"
    settings = recipe(voc, weights="vovdet_nano.voc", freeze=[part], sync_bn=True)
    run_training(settings, tmp_path)
    shipped = load_detector("vovdet_nano.voc").network.state_dict()
    tensors, _ = load_tensors(tmp_path / "weights" / "last_raw.safetensors")
    other = "backbone.stem.1.bn.running_mean"
    assert not torch.equal(tensors[other], shipped[other])
    kept = [key for key in tensors if key.startswith(f"{part}.")]
    assert len(kept) == 5
    assert all(torch.equal(tensors[key], shipped[key]) for key in kept)


def test_what_was_chosen_is_said(voc, tmp_path):
    notes: list[str] = []
    run_training(recipe(voc, batch=None, lr=None, threads=None), tmp_path, on_note=notes.append)
    learned, chosen = notes
    assert learned == "8 images to train on, 0 of them without an object; 16 objects to learn"
    start = "chosen for 8 images on this machine: batch 2, lr 0.006, threads "
    assert chosen.startswith(start)
    assert 1 <= int(chosen.removeprefix(start)) <= torch.get_num_threads()
    run_training(load_run(tmp_path), tmp_path, resume=True, on_note=notes.append)
    assert sum(note.startswith("chosen") for note in notes) == 1


def test_a_run_does_not_go_on_with_another_optimiser(voc, tmp_path):
    run_training(recipe(voc), tmp_path)
    edited = replace(load_run(tmp_path), optimizer="adamw", epochs=2)
    with pytest.raises(WeightsError, match=r"holds the moments of muon.* put muon back"):
        run_training(edited, tmp_path, resume=True)


def test_sizes_that_the_model_cannot_take_are_refused_before_training(voc, tmp_path):
    for values in (
        {"imgsz": 100},
        {"model": "dsod300-vovnet27_slim", "imgsz": 64},
        {"model": "dsod300-vovnet27_slim", "imgsz": None, "resolution": [[0.5, 64]]},
    ):
        with pytest.raises(VovnetError, match=r"--imgsz (100|64)"):
            run_training(recipe(voc, **values), tmp_path / "run")
    with pytest.raises(VovnetError, match="device cuda99: not usable here"):
        run_training(recipe(voc), tmp_path / "run", device="cuda99")
    assert not (tmp_path / "run").exists()


def test_later_datasets_follow_the_names_of_the_first(voc, make_voc, tmp_path):
    other = make_voc(tmp_path / "voc", train=2, val=1)
    for path in (other / "Annotations").glob("train*.xml"):
        path.write_text(path.read_text().replace("blue", "green"))
    merged = open_training_data(recipe(voc, data=[f"{voc}@train", f"{other}@train"]))
    assert merged.names == ("blue", "red")
    assert len(merged) == 10
    assert [r.labels.tolist() for r in merged.records] == [[0, 1]] * 8 + [[1]] * 2
    chosen = open_training_data(recipe(voc, names=["red"]))
    assert (chosen.names, {tuple(r.labels) for r in chosen.records}) == (("red",), {(0,)})


@pytest.mark.parametrize("pays", [True, False])
def test_auto_becomes_the_runs_own_precision(voc, tmp_path, monkeypatch, pays):
    monkeypatch.setattr("vovnet.train.defaults.bf16_pays", lambda kind: pays)
    run_training(recipe(voc, epochs=1, amp="auto"), tmp_path)
    assert load_run(tmp_path).amp == ("bf16" if pays else "off")
    given = recipe(voc, amp="bf16")
    assert settle(given, 8, torch.device("cpu")).amp == "bf16"


def test_a_batch_too_small_to_be_normalised_is_said(voc, tmp_path):
    recipe = recipe_from_dict({"model": "pelee304-peleenet", "data": [str(voc)], "batch": 1})
    with pytest.raises(VovnetError, match="--batch 2"):
        run_training(recipe, tmp_path)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_weights(voc, tmp_path):
    whole, compiled = tmp_path / "whole", tmp_path / "compiled"
    values = {"optimizer": "sgd", "lr": 1e-3}
    run_training(recipe(voc, **values), whole)
    run_training(recipe(voc, compile=True, **values), compiled)
    (one, _), (two, _) = (
        load_tensors(folder / "weights" / "last.safetensors") for folder in (whole, compiled)
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def test_so_many_regions_of_an_image_train_the_second_stage(voc):
    dataset = open_dataset(voc, "train")
    values = {"model": "fasterrcnn_lite-vovnet19_slim_dw", "data": [str(voc)]}
    for asked, has in ((24, 24), (None, 512)):
        asking = recipe_from_dict(values | {"regions": asked})
        assert _detector(asking, dataset).network.regions == has


@pytest.mark.parametrize("whole", [True, False])
def test_events_for_tensorboard_end_with_the_run(voc, tmp_path, whole):
    """However it ends: no thread waits on for numbers."""
    pytest.importorskip("tensorboard", reason="the extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def writers() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if type(t).__name__ == "_AsyncWriterThread"}

    def stop(row: dict) -> None:
        if not whole:
            raise KeyboardInterrupt

    before = writers()
    with nullcontext() if whole else pytest.raises(KeyboardInterrupt):
        run_training(recipe(voc, tensorboard=True), tmp_path, on_row=stop)
    assert writers() <= before
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"lr", "loss_class", "loss_box", "seconds"} <= set(events.Tags()["scalars"])


def test_a_runs_recipe_is_kept_readable(tmp_path):
    settings = recipe(tmp_path / "données", names=["très long"])
    _keep_recipe(settings, tmp_path)
    lines = (tmp_path / "config.yaml").read_text(encoding="utf-8").splitlines()
    assert "- très long" in lines
    assert lines[0] == "model: vovdet_nano"
    assert recipe_from_dict(read_recipe(tmp_path / "config.yaml")) == settings
