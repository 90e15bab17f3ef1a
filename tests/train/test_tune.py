"""The search for a recipe: what is tried, what it leaves, and how it goes on."""

import csv
from dataclasses import replace

import optuna
import pytest

from vovnet.errors import VovnetError
from vovnet.train import tune as module
from vovnet.train.recipe import Recipe, read_recipe, recipe_from_dict
from vovnet.train.tune import Search, load_search, plan, tune

SMALL = {"model": "vovdet_nano", "amp": "off", "imgsz": 64, "batch": 4, "workers": 0, "lr": 6e-3}


def search_of(voc, trials: int = 3, minutes: float = 0.15, **values) -> Search:
    given = {**SMALL, "data": [f"{voc}@train"], "val": f"{voc}@val", **values}
    return plan(recipe_from_dict(given), trials, minutes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("{voc}",), "tune needs --minutes, for all trials together"),
        (
            ("{voc}@train", "--val", "none", "--minutes", 1),
            "tune needs data to judge by; give --val",
        ),
        (("{voc}", "--minutes", 1, "--trials", 1), "--trials 1: must be at least 2"),
        (("{voc}", "--minutes", -1), "--minutes -1: must be above 0"),
        (("--resume", "{voc}"), "voc: no search to go on with"),
        (("{voc}", "--resume", "x"), "--resume takes the search's own recipe"),
    ],
)
def test_what_cannot_be_searched_is_refused(voc, refused, options, message):
    assert message in refused("tune", *(str(option).format(voc=voc) for option in options))


def searched(values: dict[str, object], **tried: object) -> Recipe:
    """The recipe of a trial with these values, of a search from a settled recipe."""
    recipe = recipe_from_dict({**SMALL, "data": ["d"], "val": "d@val", "accumulate": 2, **values})
    study = optuna.create_study()
    study.enqueue_trial({**module._usual(recipe), **tried})
    return module._recipe_of(study.ask(), Search(recipe, 2, 1.0, 32))


def test_the_usual_recipe_is_among_what_is_tried():
    assert searched({"vertical_flip": 0.3}).vertical_flip == 0.3


def test_another_side_is_computed_in_parts_of_its_own():
    assert searched({}).accumulate == 2
    assert searched({}, imgsz=128).accumulate is None


def test_what_a_trial_cannot_do_fails_it_alone(tmp_path):
    recipe = recipe_from_dict({**SMALL, "data": [str(tmp_path / "gone")], "val": "d@val"})
    notes: list[str] = []
    trial = optuna.create_study().ask()
    outcome = module._run(trial, recipe, tmp_path / "trial-7", "cpu", notes.append)
    assert outcome == (optuna.trial.TrialState.FAIL, None)
    [line] = notes
    assert line.startswith(f"trial-7: {tmp_path / 'gone'}: no such file or folder")


def test_a_resumed_search_takes_more_trials(tmp_path, run):
    recipe = recipe_from_dict({**SMALL, "data": [str(tmp_path / "gone")], "val": "d@val"})
    Search(recipe, 2, 1.0, None).save(tmp_path)
    outcome = run("tune", "--resume", tmp_path, "--trials", 3)
    assert outcome.code == 2
    assert "trial 3 of 3" in outcome.err
    assert load_search(tmp_path) == Search(recipe, 3, 1.5, None)


@pytest.mark.slow
def test_the_usual_recipe_comes_first_and_the_best_is_a_recipe_to_train_by(voc, run, tmp_path):
    small = [f"--{key}={value}" for key, value in SMALL.items() if key != "workers"]
    options = ("--val", f"{voc}@val", "--trials", 3, "--minutes", 0.3, *small)
    outcome = run("tune", f"{voc}@train", *options)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "runs/tune/tune"
    assert outcome.out.splitlines()[-1] == "runs/tune/tune"
    assert "next: vovnet train --config runs/tune/tune/best.yaml" in outcome.err
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert {row["trial"] for row in rows} == {"1", "2", "3"}
    [usual] = [row for row in rows if row["trial"] == "1"]
    assert (float(usual["lr"]), usual["imgsz"]) == (6e-3, "64")
    whole = [float(row["score"]) for row in rows if row["ended"] == "whole"]
    assert whole == sorted(whole, reverse=True)
    best = recipe_from_dict(read_recipe(folder / "best.yaml"))
    assert best.lr == float(rows[0]["lr"])
    assert best.minutes is None


@pytest.mark.slow
def test_a_stopped_search_takes_its_trial_up_again(voc, tmp_path, monkeypatch):
    search = search_of(voc)
    real, calls = module.run_training, []

    def stops_in_the_second(recipe, folder, **options):
        calls.append((folder.name, options["resume"], recipe.lr))
        if len(calls) == 2:
            on_row = options["on_row"]

            def stop(row):
                on_row(row)
                raise KeyboardInterrupt

            options["on_row"] = stop
        return real(recipe, folder, **options)

    monkeypatch.setattr(module, "run_training", stops_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        tune(search, tmp_path / "search")
    rows = tune(load_search(tmp_path / "search"), tmp_path / "search")
    assert [name for name, _, _ in calls] == ["trial-1", "trial-2", "trial-2", "trial-3"]
    assert calls[1][2] == calls[2][2]  # the same learning rate
    assert [resume for _, resume, _ in calls] == [False, False, True, False]
    assert sorted(row["trial"] for row in rows) == [1, 2, 3]


@pytest.mark.slow
def test_a_trial_that_diverges_is_one_that_failed(voc, tmp_path):
    search = search_of(voc, trials=2)
    search = replace(search, recipe=replace(search.recipe, lr=1e9, optimizer="sgd"))
    with pytest.raises(VovnetError, match="no trial came to an evaluation"):
        tune(search, tmp_path)
    assert "failed" in (tmp_path / "trials.csv").read_text()
