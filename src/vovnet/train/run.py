"""A training run as a folder: recipe, data, loop, results.csv, weights, and going on after a stop.

RUN/config.yaml                 the recipe, complete
RUN/results.csv                 one line per epoch
RUN/state.safetensors           what resuming needs
RUN/weights/last.safetensors    averaged weights after the last epoch
RUN/weights/best.safetensors    the best by map_50_95, when there is validation data
"""

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from vovnet.data.open import merge_datasets, open_dataset, parse_source
from vovnet.data.record import Dataset, problem_lines
from vovnet.device import usable_device
from vovnet.errors import VovnetError
from vovnet.evaluate.run import evaluate
from vovnet.files import write_atomically
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.rcnn import RCNN
from vovnet.train.loop import EpochReport, StepHook, report_row, train, with_precision
from vovnet.train.recipe import Recipe, read_recipe, recipe_from_dict

RowHook = Callable[[dict[str, Any]], None]


def open_training_data(recipe: Recipe) -> Dataset:
    """The recipe's datasets as one. The first one's class names rule, unless the recipe names them;
    objects of other classes in the later ones are left out."""
    names = recipe.names or None
    datasets: list[Dataset] = []
    for source in recipe.data:
        path, split = parse_source(source)
        datasets.append(open_dataset(path, split, names, drop_unknown=names is not None))
        names = datasets[0].names
    return merge_datasets(datasets) if len(datasets) > 1 else datasets[0]


def load_run(folder: Path) -> Recipe:
    """The recipe of an existing run; raises `VovnetError` if the folder holds no resumable run."""
    if not (folder / "state.safetensors").is_file():
        raise VovnetError(f"{folder}: no state.safetensors to resume from; give a run's folder")
    return recipe_from_dict(read_recipe(folder / "config.yaml"))


def run_training(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_step: StepHook | None = None,
    on_row: RowHook | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train by `recipe` into `folder`, or go on with the run that is there.

    Returns the last line of results.csv. `on_row` gets each line as it is written, `on_note` what
    was found wrong with the annotations.
    """
    target = usable_device(device)  # before the data, which can take minutes to read
    recipe = with_precision(recipe, target)
    dataset = open_training_data(recipe)
    if on_note:
        for line in problem_lines(dataset):
            on_note(line)
    detector = _detector(recipe, dataset).to(target)
    truth = _validation_data(recipe, detector)
    config = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", config.encode())
    results = _Results(folder, keep=resume)

    figures = ["map_50", "map_50_95"]
    if detector.masks:
        figures += ["mask_map_50", "mask_map_50_95"]

    def after_epoch(report: EpochReport, averaged: Detector) -> None:
        due = report.epoch + 1 == recipe.epochs or (
            recipe.val_every and (report.epoch + 1) % recipe.val_every == 0
        )
        metrics = evaluate(averaged, truth) if truth and due else {}
        chosen = {k: metrics.get(k) for k in figures} if truth else {}
        row = results.add(report_row(report, chosen))
        if on_row:
            on_row(row)

    train(
        detector,
        dataset,
        recipe,
        folder,
        resume=resume,
        on_step=on_step,
        on_epoch=after_epoch,
    )
    return results.rows[-1] if results.rows else {}


def _detector(recipe: Recipe, dataset: Dataset) -> Detector:
    # Seeded here too: the initial weights belong to the run.
    torch.manual_seed(recipe.seed)
    detector = create_detector(recipe.model, dataset.names)
    if recipe.imgsz:
        detector.input_spec = detector.input_spec.with_side(recipe.imgsz, recipe.model)
    if recipe.regions:
        if not isinstance(detector.network, RCNN):
            raise VovnetError(f"recipe: regions is for R-CNNs; leave it out for {recipe.model}")
        detector.network.regions = recipe.regions
    for _, side in recipe.resolution:
        detector.input_spec.with_side(side, recipe.model)  # raises for one it cannot take
    return detector


def _validation_data(recipe: Recipe, detector: Detector) -> Dataset | None:
    if recipe.val is None:
        return None
    path, split = parse_source(recipe.val)
    return open_dataset(path, split, detector.names, purpose="val")


class _Results:
    """results.csv, rewritten whole and atomically after every epoch; keeps the best weights."""

    def __init__(self, folder: Path, keep: bool) -> None:
        self.folder = folder
        self.path = folder / "results.csv"
        self.rows: list[dict[str, Any]] = []
        if keep and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Append an epoch's row, dropping rows of epochs that are being done again."""
        self.rows = [r for r in self.rows if int(r["epoch"]) < row["epoch"]]
        earlier = [float(r["map_50_95"]) for r in self.rows if r.get("map_50_95")]
        score = row.get("map_50_95")
        if score is not None and score > max(earlier, default=-1.0):
            weights = self.folder / "weights"
            last = (weights / "last.safetensors").read_bytes()
            write_atomically(weights / "best.safetensors", last)
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())
        return row


def with_overrides(recipe: Recipe, **values: Any) -> Recipe:
    """A recipe with the values that are not None put in place."""
    given = {k: v for k, v in values.items() if v is not None}
    return dataclasses.replace(recipe, **given)
