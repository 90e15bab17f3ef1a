"""A training run as a folder: recipe, data, loop, results, weights, and going on after a stop.

RUN/config.yaml                     the recipe, complete
RUN/results.csv                     one line per epoch
RUN/state.safetensors               what resuming needs
RUN/weights/last.safetensors        averaged weights after the last epoch
RUN/weights/last_raw.safetensors    the weights themselves
RUN/weights/best.safetensors        the best by the recipe's metric, when there is validation data
RUN/tensorboard/                    events, when asked for
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from vovnet.data.census import take_census
from vovnet.data.finding import finding_lines
from vovnet.data.names import merge_datasets
from vovnet.data.open import open_dataset, parse_source, validation_split
from vovnet.data.overlap import shared_images
from vovnet.data.placing import View
from vovnet.data.record import Dataset
from vovnet.device import keep_freed_memory, usable_device
from vovnet.distributed import broadcast_object, is_main
from vovnet.errors import DataError, UnknownNameError, VovnetError
from vovnet.evaluate.run import evaluate
from vovnet.files import write_atomically
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.rcnn import RCNN
from vovnet.train.checkpoint import check_data
from vovnet.train.defaults import settle
from vovnet.train.loop import StepHook, train
from vovnet.train.recipe import NO_VALIDATION, Recipe, read_recipe, recipe_from_dict
from vovnet.train.report import EpochReport
from vovnet.train.sinks import CsvSink, Sink, TensorBoardSink, history, out_of_patience
from vovnet.train.transfer import begin_from

RowHook = Callable[[dict[str, Any]], None]
NoteHook = Callable[[str], None]

_FIGURES = ("map_50", "map_50_95", "map_75", "voc07_ap")
_MASK_FIGURES = ("mask_map_50", "mask_map_50_95")


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
    dataset = open_training_data(recipe)
    for line in finding_lines(dataset.findings):
        tell(line)
    if resume and is_main():
        check_data(folder, dataset)  # before anything is chosen by it, or written
    detector = _detector(recipe, dataset)
    spec = detector.input_spec
    census = take_census(dataset, View(spec.size, spec.fit == "warp"), recipe.difficult)
    census.check()
    for line in census.lines():
        tell(line)
    if recipe.weights is not None and not resume:
        tell(f"{recipe.weights}: {begin_from(recipe.weights, detector)}")
    detector.to(target)
    # Thousands of steps of few shapes; a second stage's shapes follow the images.
    torch.backends.cudnn.benchmark = target.type == "cuda" and detector.criterion is not None
    recipe, truth = _validation(recipe, detector, dataset, tell)
    figures = (*_FIGURES, *(_MASK_FIGURES if detector.masks else ()))
    if recipe.metric not in figures:
        raise UnknownNameError("recipe metric", recipe.metric, figures)
    recipe = _settled(recipe, len(dataset), target, detector, tell)
    results = CsvSink(folder / "results.csv", keep=resume)
    last_row: dict[str, Any] = results.rows[-1] if results.rows else {}
    if broadcast_object(out_of_patience(results.rows, recipe.metric, recipe.patience)):
        return last_row
    sinks: list[Sink] = []
    if is_main():
        config = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_atomically(folder / "config.yaml", config.encode())
        sinks.append(results)
        if recipe.tensorboard:
            sinks.append(TensorBoardSink(folder / "tensorboard"))

    def after_epoch(report: EpochReport, averaged: Detector, due: bool) -> bool:
        nonlocal last_row
        metrics = evaluate(averaged, truth) if truth and due else {}
        last_row = report.row({k: metrics.get(k) for k in figures} if truth else {})
        if is_main():
            earlier = [row for row in results.rows if row["epoch"] < last_row["epoch"]]
            _keep_best(folder, history(earlier, recipe.metric), last_row.get(recipe.metric))
        for sink in sinks:
            sink.write(last_row)
        if on_row:
            on_row(last_row)
        return broadcast_object(out_of_patience(results.rows, recipe.metric, recipe.patience))

    try:
        train(
            detector,
            dataset,
            recipe,
            folder,
            resume=resume,
            on_step=on_step,
            on_epoch=after_epoch,
        )
    finally:
        for sink in sinks:
            sink.close()
    return last_row


def _settled(
    recipe: Recipe, images: int, device: torch.device, detector: Detector, tell: NoteHook
) -> Recipe:
    settled = settle(recipe, images, device, detector)
    before, after = recipe.to_dict(), settled.to_dict()
    chosen = [f"{key} {value}" for key, value in after.items() if value != before[key]]
    if chosen:
        tell(f"chosen for {images} images on this machine: {', '.join(chosen)}")
    return settled


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


def _validation(
    recipe: Recipe, detector: Detector, dataset: Dataset, tell: NoteHook
) -> tuple[Recipe, Dataset | None]:
    """The recipe with the data to validate on, which are those of its first data set where it says
    nothing, and these data.

    Raises `DataError` if they share images with those to train on, unless that is asked for.
    """
    if recipe.val == NO_VALIDATION:
        return recipe, None
    given = recipe.val or _own_validation(recipe)
    if given is None:
        tell("no data to validate on: give --val, or see the run's figures as they are")
        return replace(recipe, val=NO_VALIDATION), None
    path, split = parse_source(given)
    truth = open_dataset(path, split, detector.names, purpose="val", drop_unknown=not recipe.val)
    shared = () if recipe.allow_overlap else shared_images(dataset, truth)
    if shared and recipe.val:
        raise DataError(
            f"--val {given}: {len(shared)} of its {len(truth)} images are among those to train on "
            f"({shared[0]}); give other images, or --allow-overlap to judge by them all the same"
        )
    if shared:
        tell(
            f"not validated: {len(shared)} of the {len(truth)} images of {given} are among those "
            "to train on; give --val"
        )
        return replace(recipe, val=NO_VALIDATION), None
    tell(f"validated on {given}: {len(truth)} images")
    for line in finding_lines(truth.findings):
        tell(f"validation: {line}")
    return replace(recipe, val=given), truth


def _own_validation(recipe: Recipe) -> str | None:
    """The validation split of the first data set, if it has one."""
    path, split = parse_source(recipe.data[0])
    found = validation_split(path, split)
    return f"{path}@{found}" if found else None


def _keep_best(folder: Path, earlier: list[float], score: float | None) -> None:
    """Keep the weights just written if they are better than all before them."""
    if score is not None and score > max(earlier, default=-1.0):
        weights = folder / "weights"
        last = (weights / "last.safetensors").read_bytes()
        write_atomically(weights / "best.safetensors", last)
