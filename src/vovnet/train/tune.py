"""Search for a better recipe: short trainings with other learning rates, input sizes and
augmentation, each judged on the validation data, those that fall behind ended early.

FOLDER/tune.yaml         what is searched from: the recipe, the number of trials, the minutes
FOLDER/study.log         every trial, as it happens (Optuna's journal)
FOLDER/trial-N/          the run of trial N
FOLDER/trials.csv        a line a trial
FOLDER/best.yaml         the recipe of the best one, for `vovnet train --config`
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from vovnet.device import usable_device
from vovnet.errors import VovnetError
from vovnet.files import write_atomically
from vovnet.train.recipe import LENGTHS, Recipe, changed, read_recipe, recipe_from_dict
from vovnet.train.run import NoteHook, load_run, prepared, run_training

_ENDINGS = {
    TrialState.COMPLETE: "whole",
    TrialState.PRUNED: "ended early",
    TrialState.FAIL: "failed",
}
_BEFORE_PRUNING = 3  # trials, and evaluations of each
_LR_RANGE = 4.0  # around the usual rate, both ways
_SIDES = (0.75, 1.0, 1.25, 1.5, 2.0)  # times the usual side


@dataclass(frozen=True)
class Search:
    """What is searched from: a settled recipe, so many trials, all of them in so many minutes."""

    recipe: Recipe
    trials: int
    minutes: float
    multiple: int | None  # of the input's side in pixels; None if the model takes one side only

    def __post_init__(self) -> None:
        """Raise `VovnetError` for what cannot be searched."""
        _check(self.trials, self.minutes)
        if not self.recipe.validates:
            raise VovnetError("tune needs data to judge by; give --val")

    def save(self, folder: Path) -> None:
        """Write tune.yaml."""
        values = {
            "trials": self.trials,
            "minutes": self.minutes,
            "multiple": self.multiple,
            "recipe": self.recipe.to_dict(),
        }
        write_atomically(folder / "tune.yaml", _yaml(values))


def _check(trials: int, minutes: float) -> None:
    if trials < 2:
        raise VovnetError(f"--trials {trials}: must be at least 2; the first is the usual recipe")
    if not minutes > 0:
        raise VovnetError(f"--minutes {minutes:g}: must be above 0")


def load_search(folder: Path) -> Search:
    """The search that a folder of `tune` holds; raises `VovnetError` if it holds none."""
    path = folder / "tune.yaml"
    if not path.is_file():
        raise VovnetError(f"{folder}: no search to go on with; give a folder of vovnet tune")
    values = read_recipe(path)
    try:
        recipe = recipe_from_dict(values["recipe"])
        return Search(recipe, values["trials"], values["minutes"], values["multiple"])
    except (KeyError, TypeError) as error:
        raise VovnetError(f"{path}: {error} is missing or wrong; begin a new search") from None


def with_trials(search: Search, trials: int) -> Search:
    """The search with another number of trials, each as long as before."""
    return replace(search, trials=trials, minutes=search.minutes / search.trials * trials)


def plan(
    recipe: Recipe,
    trials: int,
    minutes: float,
    *,
    device: str = "cpu",
    note: NoteHook = lambda line: None,
) -> Search:
    """The search from a recipe, whose length does not count, with everything else settled."""
    _check(trials, minutes)
    each = recipe_from_dict(changed(recipe.to_dict(), {"minutes": minutes / trials}))
    notes: list[str] = []
    settled, _, detector, _ = prepared(each, None, usable_device(device), notes.append)
    search = Search(settled, trials, minutes, detector.input_spec.multiple)
    for line in notes:  # what is refused has been
        note(line)
    return search


def tune(
    search: Search, folder: Path, *, device: str = "cpu", note: NoteHook = lambda line: None
) -> list[dict[str, Any]]:
    """Run the trials that are left, the usual recipe first; all of them as rows, the best first.

    What was stopped is taken up again where it was, if the folder is the same. Raises `VovnetError`
    if no trial came to a figure.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _open(search, folder)
    while len(_finished(study)) < search.trials:
        trial, number = _next(study), len(_finished(study)) + 1
        recipe = _recipe_of(trial, search)
        note(f"trial {number} of {search.trials}: {_words(trial.params)}")
        state, score = _run(trial, recipe, folder / f"trial-{number}", device, note)
        study.tell(trial, score if state == TrialState.COMPLETE else None, state=state)
        note(f"trial {number}: {recipe.metric} {_figure(score)}, {_ENDINGS[state]}")
        _write(study, search, folder)
    rows = _rows(study, search)
    if rows[0]["score"] is None:
        raise VovnetError(f"{folder}: no trial came to an evaluation; give more --minutes")
    return rows


def _open(search: Search, folder: Path) -> optuna.Study:
    folder.mkdir(parents=True, exist_ok=True)
    search.save(folder)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
        study_name="tune",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=search.recipe.seed, n_startup_trials=4),
        pruner=optuna.pruners.MedianPruner(_BEFORE_PRUNING, _BEFORE_PRUNING),
    )
    if not study.trials:
        study.enqueue_trial(_usual(search.recipe))
    return study


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=tuple(_ENDINGS))


def _next(study: optuna.Study) -> Trial:
    """The trial that was stopped, if there is one, or a new one."""
    stopped = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return Trial(study, stopped[0]._trial_id) if stopped else study.ask()


def _usual(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own values, as far as they are searched."""
    return {
        "lr": recipe.lr,
        "imgsz": recipe.imgsz,
        "vertical_flip": recipe.vertical_flip,
        "zoom_out": recipe.zoom[0],
        "zoom_in": recipe.zoom[1],
        "mosaic": recipe.mosaic[0],
    }


def _recipe_of(trial: Trial, search: Search) -> Recipe:
    """The recipe of a trial, whose values are chosen here."""
    recipe = search.recipe
    own_lr, own_side = recipe.lr or 0.0, recipe.imgsz or 0
    lr = trial.suggest_float("lr", own_lr / _LR_RANGE, own_lr * _LR_RANGE, log=True)
    values: dict[str, Any] = {"lr": lr}
    flips = sorted({0.0, 0.5, recipe.vertical_flip})
    values["vertical_flip"] = trial.suggest_categorical("vertical_flip", flips)
    if search.multiple and not recipe.resolution:
        sides = {round(own_side * f / search.multiple) * search.multiple for f in _SIDES}
        values["imgsz"] = trial.suggest_categorical("imgsz", sorted({own_side, *sides}))
    if recipe.augment == "zoom":
        low = trial.suggest_float("zoom_out", 0.25, 1.0)
        values["zoom"] = (low, trial.suggest_float("zoom_in", 1.0, 2.5))
    if values.get("imgsz", own_side) != own_side:
        values["accumulate"] = None  # larger pictures may need more parts
    if recipe.mosaic[0]:
        values["mosaic"] = (trial.suggest_float("mosaic", 0.0, 0.8), *recipe.mosaic[1:])
    return replace(recipe, **values)


def _run(
    trial: Trial, recipe: Recipe, folder: Path, device: str, note: NoteHook
) -> tuple[TrialState, float | None]:
    """Train a trial's recipe, as far as it is worth it; how it ended, and its best figure.

    What a trial cannot do, as with too little memory for its size, is told and ends it alone.
    """
    known = trial.study.trials[trial.number].intermediate_values  # before it was stopped
    scores = [known[key] for key in sorted(known)]

    def on_row(row: dict[str, Any]) -> None:
        if (score := row.get(recipe.metric)) is None:
            return
        scores.append(score)
        # By the count of evaluations, which come at equal shares of the time: epochs differ.
        trial.report(score, len(scores))
        if trial.should_prune():
            raise optuna.TrialPruned

    resume = (folder / "state.safetensors").is_file()
    try:
        run_training(recipe, folder, resume=resume, device=device, on_row=on_row)
        state = TrialState.COMPLETE if scores else TrialState.FAIL
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except VovnetError as error:
        note(f"{folder.name}: {error}")
        state = TrialState.FAIL
    return state, max(scores, default=None)


def _rows(study: optuna.Study, search: Search) -> list[dict[str, Any]]:
    """The finished trials, the best first: those that ran whole before those that did not."""
    rows = []
    for number, trial in enumerate(_finished(study), 1):
        began, ended = trial.datetime_start, trial.datetime_complete
        seconds = (ended - began).total_seconds() if began and ended else 0.0
        rows.append(
            {
                "trial": number,
                "score": max(trial.intermediate_values.values(), default=None),
                "ended": _ENDINGS[trial.state],
                "minutes": round(seconds / 60, 2),
                **{key: trial.params.get(key) for key in _usual(search.recipe)},
            }
        )
    return sorted(rows, key=_goodness, reverse=True)


def _goodness(row: dict[str, Any]) -> tuple[bool, float]:
    return row["ended"] == _ENDINGS[TrialState.COMPLETE], row["score"] or 0.0


def _write(study: optuna.Study, search: Search, folder: Path) -> None:
    """trials.csv and best.yaml, anew."""
    rows = _rows(study, search)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / "trials.csv", text.getvalue().encode())
    if rows[0]["score"] is not None:
        best = load_run(folder / f"trial-{rows[0]['trial']}").to_dict()
        values = {key: value for key, value in best.items() if key not in LENGTHS}
        head = f"# The best of {len(rows)} trials of vovnet tune: {_figure(rows[0]['score'])}\n"
        write_atomically(folder / "best.yaml", head.encode() + _yaml(values))


def _yaml(values: dict[str, Any]) -> bytes:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode()


def _words(params: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in params.items())


def _figure(score: float | None) -> str:
    return "no figure" if score is None else f"{score:.4f}"
