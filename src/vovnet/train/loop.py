"""The training loop, in the open: batches in, steps taken, states saved, epochs reported."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vovnet.data.cache import open_cache
from vovnet.data.draws import EpochBatches, EpochPlan, repeat_factors
from vovnet.data.loader import Batch, TrainLoader, TrainSamples, train_loader
from vovnet.data.record import Dataset
from vovnet.data.resident import ResidentLoader, resident_loader
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.device import free_memory
from vovnet.distributed import is_main, mean_across, processes_here, rank, world_size
from vovnet.errors import DataError, VovnetError
from vovnet.limits import usable_cores
from vovnet.models.detector import Detector
from vovnet.models.sync_norm import synchronize_norms
from vovnet.models.weights import save_detector
from vovnet.streams import stream_seed
from vovnet.train.batch_picture import keep_batch
from vovnet.train.checkpoint import (
    Learned,
    Progress,
    begin,
    fingerprint,
    load_state,
    save_state,
)
from vovnet.train.defaults import settle
from vovnet.train.graphs import GraphedNetwork
from vovnet.train.recipe import Recipe
from vovnet.train.report import EpochReport
from vovnet.train.schedule import Length, warmed_by_clock
from vovnet.train.step import AUTOCAST, Stepper
from vovnet.train.stopping import StopRequest
from vovnet.train.transfer import freeze
from vovnet.train.watch import DivergedError

StepHook = Callable[[EpochReport, int], None]  # (epoch so far, steps in the epoch)
# Called with (epoch, averaged detector, whether an evaluation is due, whether a stop has been asked
# for), before the epoch counts as done; says whether to end here.
EpochHook = Callable[[EpochReport, Detector, bool, Callable[[], bool]], bool]


@dataclass
class Run:
    """The moving parts of a training run."""

    detector: Detector
    recipe: Recipe
    folder: Path
    learned: Learned
    stepper: Stepper
    batches: EpochBatches
    length: Length
    progress: Progress
    frozen: list[nn.Module]

    @property
    def state_path(self) -> Path:
        """Where the resumable state lies."""
        return self.folder / "state.safetensors"

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of a whole epoch."""
        return len(self.batches) // (self.recipe.accumulate or 1)

    @property
    def share(self) -> float:
        """How much of the run is done, 0..1."""
        return self.length.share(self.progress.step, self.progress.seconds)

    @property
    def finished(self) -> bool:
        """Whether all steps are taken and the last epoch has ended, evaluated and saved."""
        return self.share >= 1 and self.progress.step_of_epoch == 0

    @property
    def share_before(self) -> float:
        """How much of the run was done when the epoch under way began."""
        before = self.progress.step - self.progress.step_of_epoch
        seconds = self.progress.seconds - self.progress.report.get("seconds", 0.0)
        return self.length.share(before, seconds)

    @property
    def plan(self) -> EpochPlan:
        """The input side of the epoch under way, and its shares of mosaics and mixed pictures.

        They are the epoch's: taken up again in its middle, it goes on as it began.
        """
        share = self.share_before
        size = self.recipe.size_at(share, _full_size(self.detector, self.recipe))
        return EpochPlan(size, self.recipe.mosaic_at(share), self.recipe.mixup_at(share))

    def save(self, report: EpochReport | None = None) -> None:
        """Write the resumable state, with the report of an epoch that is not over."""
        if report is not None:
            self.progress.report = report.to_dict()
        if is_main():
            save_state(self.state_path, self.progress, self.learned, self.recipe.to_dict())


def train(
    detector: Detector,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: StepHook | None = None,
    on_epoch: EpochHook | None = None,
) -> Path:
    """Train `detector` on `dataset` and leave everything in `folder`; returns the last weights.

    After every epoch `weights/last.safetensors` holds the averaged weights, `last_raw.safetensors`
    those of the last step, and `state.safetensors` the resumable state, which is also saved every
    `save_minutes` and when the run is asked to stop (SIGINT, SIGTERM; then KeyboardInterrupt is
    raised). With `resume` a run goes on from it, bit for bit on the same CPU with the same number
    of threads. Under torchrun all processes call this, and the first one writes.

    Raises `DivergedError` naming what became NaN or infinite, or grew out of hand.
    """
    torch.manual_seed(recipe.seed)
    device = next(detector.parameters()).device
    recipe = settle(recipe, len(dataset), device, detector)
    detector.train().to(memory_format=torch.channels_last)
    run = _start(detector, dataset, recipe, folder, device)
    if resume:
        saved = load_state(run.state_path, run.learned, recipe.optimizer)
        run.progress = replace(saved, data=run.progress.data)  # older states do not know it
    last = folder / "weights" / "last.safetensors"
    if run.finished:
        return last
    loader = _loader(run, dataset, device)
    with StopRequest() as stop, closing(loader):
        while not run.finished:
            before = run.share_before
            report = _train_epoch(run, loader, on_step, stop)
            due = recipe.evaluates_after(report.epoch, before, run.share)
            if due:
                run.save(report)  # evaluating may take long, and a kill not wait for its end
            run.progress = replace(
                run.progress, epoch=run.progress.epoch + 1, step_of_epoch=0, report={}
            )
            averaged = _save_weights(run, dataset)
            done = bool(on_epoch and on_epoch(report, averaged, due, lambda: stop.asked))
            run.save()
            if done:
                break
            if not run.finished and _agreed(run, stop)[1]:
                raise KeyboardInterrupt
    return last


def _full_size(detector: Detector, recipe: Recipe) -> int:
    return recipe.imgsz or detector.input_spec.size[0]


def _start(
    detector: Detector, dataset: Dataset, recipe: Recipe, folder: Path, device: torch.device
) -> Run:
    if recipe.sync_bn:
        synchronize_norms(detector.network)
    frozen = freeze(detector.network, recipe.freeze)  # last: it returns modules
    learned = begin(detector.network, recipe, device)
    batches = EpochBatches(
        len(dataset),
        (recipe.batch or 1) // (recipe.accumulate or 1),
        recipe.seed,
        lambda epoch: run.plan,
        repeats=_repeats(dataset, recipe),
        rank=rank(),
        world=world_size(),
    )
    run = Run(
        detector,
        recipe,
        folder,
        learned,
        Stepper(detector, _callable(detector.network, recipe, device), learned, recipe, device),
        batches,
        Length(),
        Progress(images=len(dataset), data=fingerprint(dataset)),
        frozen,
    )
    run.length = _length(recipe, run.steps_per_epoch)
    return run


def _repeats(dataset: Dataset, recipe: Recipe) -> np.ndarray | None:
    if not recipe.balance:
        return None
    return repeat_factors(dataset.records, recipe.balance, recipe.difficult)


def _callable(network: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network as the loop calls it."""
    if world_size() > 1:
        called: Any = torch.compile(network) if recipe.compile else network
        return DistributedDataParallel(
            called, device_ids=[device.index] if device.type == "cuda" else None
        )
    if recipe.compile:
        return cast(nn.Module, torch.compile(network))
    if recipe.graphs and device.type == "cuda":
        return GraphedNetwork(network, AUTOCAST.get(recipe.amp))
    return network


def _length(recipe: Recipe, steps_per_epoch: int) -> Length:
    if recipe.minutes is not None:
        return Length(seconds=60 * recipe.minutes)
    return Length(steps=recipe.steps or (recipe.epochs or 1) * steps_per_epoch)


def _loader(run: Run, dataset: Dataset, device: torch.device) -> TrainLoader | ResidentLoader:
    recipe, detector = run.recipe, run.detector
    if detector.masks and not any(record.segmentations for record in dataset.records):
        raise DataError(
            f"{dataset.root}: no masks in it, and {detector.name} draws them; give COCO "
            "segmentations, or train a Faster R-CNN"
        )
    # Half as large again as the input: zooming in still finds detail.
    longest = round(1.5 * _full_size(detector, recipe))
    mode = "off" if recipe.cache == "device" else recipe.cache
    beside = processes_here()
    budget = free_memory(torch.device("cpu")) / 2 / beside
    threads, workers = max(1, usable_cores() // beside), recipe.workers or 0
    cache = open_cache(mode, dataset.records, longest, budget=budget, threads=threads)
    augment = _augmentation(recipe, detector)
    samples = TrainSamples(
        dataset, cache, augment, recipe.seed, recipe.difficult, masks=detector.masks
    )
    if recipe.cache == "device":
        return resident_loader(
            samples, run.batches, longest, device, workers=workers, threads=threads
        )
    return train_loader(samples, run.batches, workers, pin_memory=device.type == "cuda")


def _augmentation(recipe: Recipe, detector: Detector) -> SSDAugment | ZoomAugment:
    if recipe.augment == "ssd":
        if detector.masks:
            raise VovnetError(f"{detector.name}: augment ssd carries no masks; choose zoom")
        return SSDAugment(recipe.flip, recipe.vertical_flip)
    return ZoomAugment(
        recipe.zoom,
        aspect=recipe.aspect,
        flip=recipe.flip,
        vertical_flip=recipe.vertical_flip,
        fit=detector.input_spec.fit,
    )


def _save_weights(run: Run, dataset: Dataset) -> Detector:
    """Write the epoch's weights, averaged and raw; returns the averaged detector."""
    averaged = run.detector.around(run.learned.average.network).eval()
    facts: dict[str, Any] = {
        "recipe": run.recipe.to_dict(),
        "epoch": run.progress.epoch,
        "data_names": dataset.names,
        **({"teacher": dataset.teacher} if dataset.teacher else {}),
    }
    if is_main():
        weights = run.folder / "weights"
        save_detector(weights / "last.safetensors", averaged, **facts)
        save_detector(weights / "last_raw.safetensors", run.detector, **facts)
    return averaged


def _train_epoch(
    run: Run, loader: Iterable[Batch], on_step: StepHook | None, stop: StopRequest
) -> EpochReport:
    """The rest of the epoch under way, or as much of it as the run still has."""
    progress, recipe = run.progress, run.recipe
    accumulate = recipe.accumulate or 1
    run.batches.epoch = progress.epoch
    run.batches.skip = progress.step_of_epoch * accumulate
    run.detector.train()
    for part in run.frozen:
        part.eval()
    report = EpochReport(progress.epoch, run.plan.size)
    if progress.report:
        report = EpochReport(**progress.report)
    before = progress.seconds - report.seconds
    saved = time.monotonic()
    if run.share >= 1:  # it was stopped after its last step, or its length was cut
        return report
    if isinstance(run.stepper.forward, GraphedNetwork):
        run.stepper.forward.record(run.batches.batch, run.plan.size)
    for parts, waited in _parts_of_steps(loader, accumulate):
        began = time.perf_counter()
        _take_step(run, parts, report)
        report.waited += waited
        report.seconds += waited + time.perf_counter() - began
        progress.step += 1
        progress.step_of_epoch += 1
        progress.seconds = before + report.seconds
        report.share = run.share
        if progress.step == 1 and is_main():
            keep_batch(run.folder, parts[0], run.detector.names)
        if on_step:
            on_step(report, run.steps_per_epoch)
        progress.seconds, asked = _agreed(run, stop)
        if run.share >= 1 or progress.step_of_epoch >= run.steps_per_epoch:
            break
        if asked or time.monotonic() - saved > 60 * recipe.save_minutes:
            run.save(report)
            saved = time.monotonic()
        if asked:
            raise KeyboardInterrupt
    return report


def _agreed(run: Run, stop: StopRequest) -> tuple[float, bool]:
    """The seconds trained, and whether to stop: the same in all processes, or they would end, or
    set the learning rate, at different steps."""
    if world_size() == 1:
        return run.progress.seconds, stop.asked
    own = torch.tensor([run.progress.seconds, stop.asked], dtype=torch.float64)
    seconds, asked = mean_across(own.to(run.stepper.device)).tolist()
    return seconds, asked > 0


def _parts_of_steps(
    loader: Iterable[Batch], accumulate: int
) -> Iterator[tuple[list[Batch], float]]:
    """The batches that each step is computed in, and the seconds spent waiting for them."""
    batches = iter(loader)
    while True:
        began = time.perf_counter()
        parts = list(islice(batches, accumulate))
        if len(parts) < accumulate:
            return
        yield parts, time.perf_counter() - began


def _seeded(parts: list[Batch], seed: int, step: int) -> list[Batch]:
    """The parts of a step with a seed for every target, by its image's place in the whole step:
    two-stage detectors draw the regions they train on, and must draw the same after a stop, in
    other parts, and in more processes."""
    seeded = []
    for number, part in enumerate(parts):
        first = (number * world_size() + rank()) * len(part.targets)
        targets = [
            target._replace(seed=stream_seed(seed, "step", step, first + i))
            for i, target in enumerate(part.targets)
        ]
        seeded.append(part._replace(targets=targets))
    return seeded


def _rate(run: Run) -> float:
    """The learning rate of the next step."""
    recipe, progress = run.recipe, run.progress
    if run.length.steps is not None:
        return recipe.lr_at(progress.step, run.length.steps)
    progress.warmed = warmed_by_clock(progress.warmed, progress.step, run.share, recipe.warmup)
    return recipe.lr_by_clock(run.share, progress.warmed)


def _take_step(run: Run, parts: list[Batch], report: EpochReport) -> None:
    recipe, step = run.recipe, run.progress.step
    report.lr = _rate(run)
    try:
        losses = run.stepper(_seeded(parts, recipe.seed, step), report.lr)
    except DivergedError as error:
        raise DivergedError(
            f"{error} in epoch {report.epoch + 1}, step {step + 1}, at lr {report.lr:.2g}; "
            "start again with a lower --lr"
        ) from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise VovnetError(
            f"{run.detector.name} normalises over the batch, and one image leaves it a single "
            "value; give --batch 2 or more, and at least two images"
        ) from None
    report.add(losses, world_size() * sum(len(part.targets) for part in parts))
