"""A run's folder as one reads it afterwards, however far the run has come."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vovnet.data.open import open_dataset, parse_source
from vovnet.data.record import Dataset
from vovnet.data.yaml_file import read_yaml
from vovnet.errors import DataError, VovnetError
from vovnet.review.kept import Kept, load_kept
from vovnet.review.matches import Judged, judged
from vovnet.review.pictures import BATCH
from vovnet.review.results import Rows, out_of_patience, read_results
from vovnet.text import one_line

_NO_VALIDATION = (None, "none")


@dataclass(frozen=True, eq=False)
class Run:
    """What a run's folder holds. `missing` says what is not there, and how to get it; `commands`
    what to do about an unfinished run."""

    folder: Path
    recipe: Mapping[str, Any]
    rows: Rows
    batch: bytes | None
    judged: Judged | None
    epoch: int | None  # whose weights were judged
    missing: tuple[str, ...]

    @property
    def weights(self) -> bool:
        """Whether there are weights to use."""
        names = ("best", "last")
        return any((self.folder / "weights" / f"{n}.safetensors").is_file() for n in names)

    @property
    def progress(self) -> str:
        """How many epochs are done, and of how many where the recipe counts them."""
        done = self.rows[-1]["epoch"] if self.rows else 0
        whole = self.recipe.get("epochs")
        return f"{done} of {whole}" if isinstance(whole, int) else f"{done}"

    @property
    def unfinished(self) -> bool:
        """Whether it is known to be shorter than its recipe wants it."""
        metric, patience = self.recipe.get("metric"), self.recipe.get("patience")
        if isinstance(patience, int) and out_of_patience(self.rows, str(metric), patience):
            return False
        done = self.rows[-1]["epoch"] if self.rows else 0
        whole, minutes = self.recipe.get("epochs"), self.recipe.get("minutes")
        if isinstance(whole, int):
            return (done or 0) < whole
        if isinstance(minutes, int | float):
            return sum(row.get("seconds") or 0 for row in self.rows) < 60 * minutes
        return not self.rows


def read_run(folder: Path, truth: Dataset | None = None) -> Run:
    """The run in a folder; `truth` is what it was judged by, where that is at hand.

    Raises `VovnetError` if there is no run in it, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise VovnetError(
            f"{one_line(folder)}: no such folder; give a run's folder, such as runs/train/NAME"
        )
    config, results = folder / "config.yaml", folder / "results.csv"
    if not config.is_file() and not results.is_file():
        raise VovnetError(
            f"{one_line(folder)}: no run in it (neither config.yaml nor results.csv); give a run's "
            "folder, such as runs/train/NAME"
        )
    recipe = read_yaml(config) if config.is_file() else {}
    if not isinstance(recipe, dict):
        raise VovnetError(f"{one_line(config)}: a recipe is a list of `key: value` lines")
    rows = read_results(results) if results.is_file() else []
    missing = [] if rows else ["No epoch has ended yet, so there are no curves."]
    kept, dataset = load_kept(folder), truth
    try:
        dataset = dataset or _truth(recipe, kept)
        if kept is not None and dataset is not None:
            kept.check(dataset)
    except DataError as error:
        others = _val_command(folder, "PATH@SPLIT")
        missing.append(
            f"What was found cannot be shown. {error}. Bring the data back, or measure on others: "
            f"{others}"
        )
        dataset = None
    if kept is None:
        missing.append(_not_judged(folder, recipe))
    beside = judged(kept.found, dataset.records, kept.names) if kept and dataset else None
    batch = folder / BATCH
    return Run(
        folder,
        recipe,
        rows,
        batch.read_bytes() if batch.is_file() else None,
        beside,
        kept.epoch if kept else None,
        tuple(missing),
    )


def _truth(recipe: Mapping[str, Any], kept: Kept | None) -> Dataset | None:
    if kept is None or recipe.get("val") in _NO_VALIDATION:
        return None
    path, split = parse_source(str(recipe["val"]))
    return open_dataset(path, split, kept.names, purpose="val", drop_unknown=True)


def _not_judged(folder: Path, recipe: Mapping[str, Any]) -> str:
    """Why there is no accuracy, and the command that measures it."""
    val = recipe.get("val")
    if val in _NO_VALIDATION:
        return (
            "No accuracy: the run had no images to validate on. Measure it: "
            f"{_val_command(folder, 'PATH@SPLIT')}"
        )
    return (
        "No detections: the run was not evaluated yet, or by an earlier version, which kept none. "
        f"Measure it: {_val_command(folder, str(val))}"
    )


def _val_command(folder: Path, data: str) -> str:
    page = shlex.quote(str(folder / "val.html"))
    return (
        f"vovnet val --data {shlex.quote(data)} --weights {shlex.quote(str(folder))} --html {page}"
    )
