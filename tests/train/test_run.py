"""Runs that begin from other weights, leave things open, or compile their network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vovnet.errors import WeightsError
from vovnet.models.weights import load_detector, load_tensors
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.run import load_run, run_training


def recipe(voc: Path, **values) -> Recipe:
    base = {
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
    [line] = notes
    assert line.startswith("vovdet_nano.voc: ")
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
    run_training(recipe(voc, batch=None, lr=None), tmp_path, on_note=notes.append)
    assert notes == ["chosen for 8 images on this machine: batch 2, lr 0.006"]
    run_training(load_run(tmp_path), tmp_path, resume=True, on_note=notes.append)
    assert len(notes) == 1


def test_a_run_does_not_go_on_with_another_optimiser(voc, tmp_path):
    run_training(recipe(voc), tmp_path)
    edited = replace(load_run(tmp_path), optimizer="adamw", epochs=2)
    with pytest.raises(WeightsError, match=r"holds the moments of muon.* put muon back"):
        run_training(edited, tmp_path, resume=True)


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
