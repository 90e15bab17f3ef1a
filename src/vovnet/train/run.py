"""A training run as a folder: recipe, data, loop, results, weights, and going on after a stop.

RUN/config.yaml                     the recipe, complete
RUN/results.csv                     one line per epoch
RUN/batch.jpg                       pictures of the first batch, as the network sees them
RUN/state.safetensors               what resuming needs
RUN/weights/last.safetensors        averaged weights after the last epoch
RUN/weights/last_raw.safetensors    the weights themselves
RUN/weights/best.safetensors        the best by the recipe's metric, when there is validation data
RUN/evaluation.npz                  what those found in the validation data
RUN/report.html                     all of this to look at, at the end of the run
RUN/tensorboard/                    events, when asked for
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml

from vovnet.data.record import Dataset
from vovnet.detections import Detections
from vovnet.device import keep_freed_memory, threads_used, usable_device
from vovnet.distributed import broadcast_object, is_main
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.evaluate.together import evaluate_together
from vovnet.files import write_atomically
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.rcnn import RCNN
from vovnet.review.kept import save_kept
from vovnet.review.page import REPORT, page_of_run
from vovnet.review.results import history, out_of_patience
from vovnet.train.checkpoint import check_data, check_resumable
from vovnet.train.data import data_notes, open_training_data, validation_data
from vovnet.train.defaults import on_machine, settle
from vovnet.train.input_size import fit_input
from vovnet.train.loop import StepHook, train
from vovnet.train.recipe import LENGTHS, NO_VALIDATION, Recipe, read_recipe, recipe_from_dict
from vovnet.train.report import EpochReport
from vovnet.train.sinks import CsvSink, Sink, TensorBoardSink
from vovnet.train.teacher import check_takes_scores, taught
from vovnet.train.trackers import MLflowSink, Tracker, WandbSink
from vovnet.train.transfer import begin_from

RowHook = Callable[[dict[str, Any]], None]
NoteHook = Callable[[str], None]

_FIGURES = ("map_50", "map_50_95", "map_75", "voc07_ap")
_MASK_FIGURES = ("mask_map_50", "mask_map_50_95")


def load_run(folder: Path) -> Recipe:
    """The recipe of an existing run; raises `VovnetError` if the folder holds no resumable run."""
    check_resumable(folder, "train")
    return recipe_from_dict(read_recipe(folder / "config.yaml"))


def run_training(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_step: StepHook | None = None,
    on_row: RowHook | None = None,
    on_note: NoteHook | None = None,
) -> dict[str, Any]:
    """Train by `recipe` into `folder`, or go on with the run that is there.

    Returns the last line of results.csv. `on_row` gets each line as it is written, `on_note` what
    was found wrong with the annotations and what was taken from other weights.
    """
    target = usable_device(device)  # before the data, which can take minutes to read
    if target.type == "cpu":
        keep_freed_memory()
    tell = on_note or (lambda line: None)
    resumed = folder if resume else None
    recipe, dataset, detector, truth = prepared(recipe, resumed, target, tell)
    figures = _figures(recipe, detector)
    results = CsvSink(folder / "results.csv", keep=resume)
    last_row: dict[str, Any] = results.rows[-1] if results.rows else {}
    if broadcast_object(out_of_patience(results.rows, recipe.metric, recipe.patience)):
        tell(_out_of_patience(recipe, folder))
        return last_row
    sinks = _sinks(results, recipe, tell) if is_main() else []
    keep_recipe = cache(partial(_keep_recipe, recipe, folder))  # once
    if resume:
        keep_recipe()
    done_before = last_row

    def after_epoch(
        report: EpochReport, averaged: Detector, due: bool, stop: Callable[[], bool]
    ) -> bool:
        nonlocal last_row
        metrics, found = _evaluated(averaged, truth if due else None, stop)
        last_row = report.row({k: metrics.get(k) for k in figures} if truth else {})
        if is_main() and truth and _is_best(last_row, results.rows, recipe.metric):
            _keep_best(folder, found, truth, last_row["epoch"])
        for sink in sinks:
            sink.write(last_row)
        if on_row:
            on_row(last_row)
        return broadcast_object(out_of_patience(results.rows, recipe.metric, recipe.patience))

    try:
        with threads_used(recipe.threads):
            train(
                detector,
                dataset,
                recipe,
                folder,
                resume=resume,
                on_step=_keeping(keep_recipe, on_step),
                on_epoch=after_epoch,
            )
    finally:
        for sink in sinks:
            sink.close()
    if resume and last_row is done_before:
        tell(_finished(recipe, folder))
    elif truth and is_main():
        _report(folder, truth, tell)
    return last_row


def prepared(
    given: Recipe, resumed: Path | None, device: torch.device, tell: NoteHook
) -> tuple[Recipe, Dataset, Detector, Dataset | None]:
    """The recipe with nothing left open, what there is to learn, the detector that learns it, on
    the device, and the data that judge it. `resumed` is the folder of a run that goes on.

    What is refused is refused before anything is told: an error stands alone.
    """
    dataset = open_training_data(given)
    detector = _detector(given, dataset)
    notes: list[str] = []
    if given.teacher is not None:
        check_takes_scores(detector)
        dataset, notes = taught(given.teacher, given.teacher_conf, dataset)
    recipe = on_machine(given, device)
    if resumed is None:  # what earlier versions began does not know its size
        recipe, why = _fitted(recipe, dataset, detector, device)
        notes += why
    elif is_main():
        check_data(resumed, dataset)  # before anything is chosen by it, or written
    notes += data_notes(dataset, detector.input_spec, recipe.difficult)
    if resumed and recipe.val is None:  # begun before validation data were looked for
        recipe = replace(recipe, val=NO_VALIDATION)
    recipe, truth, of_validation = validation_data(recipe, detector.names, dataset)
    _figures(recipe, detector)
    notes += of_validation
    if recipe.weights is not None and not resumed:
        notes.append(f"{recipe.weights}: {begin_from(recipe.weights, detector)}")
    for note in notes:
        tell(note)
    detector.to(device)
    # Thousands of steps of few shapes; a second stage's shapes follow the images.
    torch.backends.cudnn.benchmark = device.type == "cuda" and detector.criterion is not None
    recipe = settle(recipe, len(dataset), device, detector)
    if line := _chosen(replace(given, val=recipe.val), recipe, len(dataset)):
        tell(line)
    return recipe, dataset, detector, truth


def _figures(recipe: Recipe, detector: Detector) -> tuple[str, ...]:
    """What an evaluation adds to a line of results.csv."""
    figures = (*_FIGURES, *(_MASK_FIGURES if detector.masks else ()))
    if recipe.metric not in figures:
        raise UnknownNameError("recipe metric", recipe.metric, figures)
    return figures


def _keep_recipe(recipe: Recipe, folder: Path) -> None:
    if is_main():
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_atomically(folder / "config.yaml", text.encode())


def _sinks(results: CsvSink, recipe: Recipe, tell: NoteHook) -> list[Sink]:
    folder, values = results.path.parent, recipe.to_dict()
    sinks: list[Sink] = [results]
    if recipe.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard"))
    if recipe.mlflow:
        sinks.append(Tracker("mlflow", lambda: MLflowSink(folder, values), tell))
    if recipe.wandb:
        sinks.append(Tracker("wandb", lambda: WandbSink(folder, values), tell))
    return sinks


def _out_of_patience(recipe: Recipe, folder: Path) -> str:
    return (
        f"{folder}: this run is finished: {recipe.patience} evaluations brought nothing better; to "
        f"train longer, begin anew with --weights {folder}"
    )


def _keeping(keep_recipe: Callable[[], None], on_step: StepHook | None) -> StepHook:
    """Keeps the recipe after the first step, not earlier: a start that fails leaves nothing."""

    def after_step(report: EpochReport, steps: int) -> None:
        keep_recipe()
        if on_step:
            on_step(report, steps)

    return after_step


def _finished(recipe: Recipe, folder: Path) -> str:
    key = next(key for key in LENGTHS if getattr(recipe, key) is not None)
    return (
        f"{folder}: this run is finished; to go on longer, give it more than its "
        f"{getattr(recipe, key):g} {key}: vovnet train --resume {folder} --{key} N"
    )


def _fitted(
    recipe: Recipe, dataset: Dataset, detector: Detector, device: torch.device
) -> tuple[Recipe, list[str]]:
    """The recipe and the detector with the input side that fits the data, and why."""
    fit = broadcast_object(fit_input(recipe, dataset, detector, device))
    detector.input_spec = detector.input_spec.with_side(fit.side, recipe.model)
    return replace(recipe, imgsz=fit.side), [fit.line] if fit.line else []


def _chosen(given: Recipe, recipe: Recipe, images: int) -> str:
    """What a recipe left open, in a line; empty if nothing."""
    before, after = given.to_dict(), recipe.to_dict()
    chosen = [f"{key} {value}" for key, value in after.items() if value != before[key]]
    return f"chosen for {images} images on this machine: {', '.join(chosen)}" if chosen else ""


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


def _evaluated(
    detector: Detector, truth: Dataset | None, stop: Callable[[], bool]
) -> tuple[dict[str, Any], list[Detections]]:
    """The figures on the validation data, and, in the main process, what was found in them."""
    found: list[Detections] = []
    if truth is None:
        return {}, found
    return evaluate_together(detector, truth, stop=stop, on_found=found.extend), found


def _is_best(row: dict[str, Any], rows: list[dict[str, Any]], metric: str) -> bool:
    """Whether an epoch's evaluation is better than those of all epochs before it."""
    earlier = history([other for other in rows if other["epoch"] < row["epoch"]], metric)
    score = row.get(metric)
    return score is not None and score > max(earlier, default=-1.0)


def _keep_best(folder: Path, found: list[Detections], truth: Dataset, epoch: int) -> None:
    """Keep the weights just written, and what they found."""
    last = (folder / "weights" / "last.safetensors").read_bytes()
    write_atomically(folder / "weights" / "best.safetensors", last)
    save_kept(folder, found, truth.records, truth.names, epoch)


def _report(folder: Path, truth: Dataset, tell: NoteHook) -> None:
    """Write the run's page. The run is done and saved: what hinders the page is only told."""
    try:
        page_of_run(folder, truth).write(folder / REPORT)
        tell(f"curves, mistakes and pictures: {folder / REPORT}")
    except VovnetError as error:
        tell(f"no report: {error}")
