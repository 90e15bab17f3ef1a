"""The training loop, in the open: batches in, losses, one optimiser step, and what was seen."""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vovnet.data.loader import Batch, EpochBatches, ImageCache, TrainSamples, train_loader
from vovnet.data.record import Dataset
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.device import bf16_pays
from vovnet.errors import DataError, VovnetError
from vovnet.models.detector import Detector
from vovnet.models.weights import save_detector
from vovnet.train.checkpoint import Progress, load_state, save_state
from vovnet.train.ema import WeightAverage
from vovnet.train.optimizers import make_optimizers
from vovnet.train.recipe import Recipe
from vovnet.train.schedule import learning_rate


class DivergedError(VovnetError):
    """A loss term or a gradient became NaN or infinite."""


@dataclass
class EpochReport:
    """What one epoch did. `losses` are means over its steps; times are seconds."""

    epoch: int
    size: int
    steps: int = 0
    images: int = 0
    lr: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0  # for data

    @property
    def images_per_second(self) -> float:
        """Training images per second, waiting included."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the epoch spent waiting for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def add(self, losses: dict[str, float], images: int) -> None:
        """Fold one step in."""
        self.steps += 1
        self.images += images
        for key, value in losses.items():
            mean = self.losses.get(key, 0.0)
            self.losses[key] = mean + (value - mean) / self.steps


StepHook = Callable[[EpochReport, int], None]  # (epoch so far, steps in the epoch)
# Called with the averaged detector, before the epoch counts as done: a run that is killed here
# does the epoch again.
EpochHook = Callable[[EpochReport, Detector], None]


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with "auto" replaced by what is faster on this device, so that it is the run's
    own: a run that is resumed must compute as it did."""
    if recipe.amp != "auto":
        return recipe
    return replace(recipe, amp="bf16" if bf16_pays(device.type) else "off")


@dataclass
class Run:
    """The moving parts of a training run."""

    detector: Detector
    recipe: Recipe
    folder: Path
    average: WeightAverage
    optimizers: tuple[torch.optim.Optimizer, ...]
    batches: EpochBatches
    progress: Progress
    device: torch.device

    @property
    def state_path(self) -> Path:
        """Where the resumable state lies."""
        return self.folder / "state.safetensors"


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

    After every epoch `weights/last.safetensors` holds the averaged weights and `state.safetensors`
    the resumable state; with `resume` a run goes on from the latter, bit for bit on the same CPU
    with the same number of threads. Raises `DivergedError` naming the loss term that became NaN
    or infinite.
    """
    torch.manual_seed(recipe.seed)
    recipe = with_precision(recipe, next(detector.parameters()).device)
    detector.train().to(memory_format=torch.channels_last)
    run = _start(detector, dataset, recipe, folder)
    if resume:
        run.progress = load_state(run.state_path, detector.network, run.average, run.optimizers)
    samples = _samples(dataset, recipe, _full_size(detector, recipe), detector)
    loader = train_loader(samples, run.batches, recipe.workers)
    last = folder / "weights" / "last.safetensors"
    for epoch in range(run.progress.epoch, recipe.epochs):
        report = _train_epoch(run, loader, epoch, on_step)
        run.progress = Progress(epoch + 1, run.progress.step + report.steps)
        averaged = _averaged(detector, run.average)
        save_detector(
            last, averaged, recipe=recipe.to_dict(), epoch=epoch + 1, data_names=dataset.names
        )
        if on_epoch:
            on_epoch(report, averaged)
        save_state(
            run.state_path,
            run.progress,
            detector.network,
            run.average,
            run.optimizers,
            recipe.to_dict(),
        )
    return last


def _full_size(detector: Detector, recipe: Recipe) -> int:
    return recipe.imgsz or detector.input_spec.size[0]


def _start(detector: Detector, dataset: Dataset, recipe: Recipe, folder: Path) -> Run:
    size = _full_size(detector, recipe)
    batches = EpochBatches(
        len(dataset),
        recipe.batch,
        recipe.seed,
        lambda epoch: (recipe.size_at(epoch, size), recipe.mosaic_at(epoch)),
    )
    average = WeightAverage(detector.network, recipe.ema_decay)
    optimizers = make_optimizers(detector.network, recipe)
    device = next(detector.parameters()).device
    return Run(detector, recipe, folder, average, optimizers, batches, Progress(0, 0), device)


def _samples(dataset: Dataset, recipe: Recipe, size: int, detector: Detector) -> TrainSamples:
    # Half as large again as the input: zooming in still finds detail.
    cache = ImageCache(dataset.records, longest=round(1.5 * size), budget=_free_memory() / 2)
    augment: SSDAugment | ZoomAugment
    if recipe.augment == "ssd" and detector.masks:
        raise VovnetError(f"{detector.name}: augment ssd carries no masks; choose zoom")
    if detector.masks and not any(record.segmentations for record in dataset.records):
        raise DataError(
            f"{dataset.root}: no masks in it, and {detector.name} draws them; give COCO "
            "segmentations, or train a Faster R-CNN"
        )
    if recipe.augment == "ssd":
        augment = SSDAugment(recipe.flip, recipe.vertical_flip)
    else:
        augment = ZoomAugment(
            recipe.zoom,
            aspect=recipe.aspect,
            flip=recipe.flip,
            vertical_flip=recipe.vertical_flip,
            fit=detector.input_spec.fit,
        )
    return TrainSamples(
        dataset, cache, augment, recipe.seed, recipe.difficult, masks=detector.masks
    )


def _averaged(detector: Detector, average: WeightAverage) -> Detector:
    """The same detector around the averaged network."""
    return detector.around(average.network).eval()


def _train_epoch(
    run: Run, loader: Iterable[Batch], epoch: int, on_step: StepHook | None
) -> EpochReport:
    run.batches.epoch = epoch
    run.detector.train()
    # Two-stage detectors draw the regions they train on; a resumed run must draw the same.
    torch.manual_seed((run.recipe.seed << 20) + epoch)
    total = run.recipe.epochs * len(run.batches)
    report = EpochReport(epoch, run.batches.plan(epoch)[0])
    start = waiting = time.perf_counter()
    for batch in loader:
        report.waited += time.perf_counter() - waiting
        step = run.progress.step + report.steps
        report.lr = learning_rate(
            step,
            total,
            peak=run.recipe.lr,
            warmup=run.recipe.warmup,
            final=run.recipe.final_lr,
        )
        try:
            losses = _train_step(run, batch, report.lr)
        except DivergedError as error:
            raise DivergedError(
                f"{error} in epoch {epoch + 1}, step {step + 1}, at lr {report.lr:.2g}; "
                "start again with a lower --lr"
            ) from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise VovnetError(
                f"{run.detector.name} normalises over the batch, and one image leaves it a single "
                "value; give --batch 2 or more, and at least two images"
            ) from None
        report.add(losses, len(batch.targets))
        waiting = time.perf_counter()
        report.seconds = waiting - start
        if on_step:
            on_step(report, len(run.batches))
    return report


def _train_step(run: Run, batch: Batch, lr: float) -> dict[str, float]:
    """One optimiser step; returns the loss terms as numbers.

    Raises `DivergedError` before the weights, still good, are touched.
    """
    for group in (g for optimizer in run.optimizers for g in optimizer.param_groups):
        group["lr"] = lr
    images = run.detector.input_spec.normalize(batch.pixels.to(run.device))
    targets = [target.to(run.device) for target in batch.targets]
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.amp == "bf16"):
        outputs = run.detector(images)
        losses = run.detector.loss(outputs, targets, (images.shape[2], images.shape[3]))
    values = {name: float(value.detach()) for name, value in losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"loss term {name!r} became {value}")
    _total(losses).backward()
    norm = float(nn.utils.clip_grad_norm_(run.detector.network.parameters(), run.recipe.clip))
    if not math.isfinite(norm):
        raise DivergedError(f"the gradient's norm became {norm}")
    for optimizer in run.optimizers:
        optimizer.step()
    run.average.update(run.detector.network)
    run.detector.zero_grad(set_to_none=True)
    return values


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def report_row(report: EpochReport, metrics: dict[str, Any]) -> dict[str, Any]:
    """One line of results.csv."""
    return {
        "epoch": report.epoch + 1,
        "size": report.size,
        "lr": round(report.lr, 8),
        **{f"loss_{k}": round(v, 6) for k, v in report.losses.items()},
        "images_per_s": round(report.images_per_second, 2),
        "data_wait": round(report.wait_share, 4),
        "seconds": round(report.seconds, 2),
        "memory_mb": _resident_mb(),
        **metrics,
    }


def _free_memory() -> float:
    """Bytes that programs can still take; without limit where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return math.inf if kilobytes is None else 1024.0 * int(kilobytes)


def _resident_mb() -> int | None:
    """Memory that this process holds now, in MB, where the system tells (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
