"""The CIFAR-10 study (section 3.2): DenseNet-40 and the OSA networks put in its place.

The paper says "same experiment as DenseNet" (arXiv 1608.06993 section 4.2), which is what the
recipes hold; images are shifted by up to 4 pixels and mirrored. The network is wrapped as a
`Detector` of one label an image, so that steps, schedule and state are those of every training.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from vovnet.data.cifar import SIDE, Cifar, read_cifar10
from vovnet.data.loader import Batch
from vovnet.device import keep_freed_memory, usable_device
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.files import write_atomically
from vovnet.input_spec import InputSpec
from vovnet.losses import Target, Term
from vovnet.models import create_model
from vovnet.models.cifar import SPECS
from vovnet.models.detector import Detector
from vovnet.models.weights import save_tensors
from vovnet.streams import stream
from vovnet.train.checkpoint import Learned, Progress, begin, load_state, save_state
from vovnet.train.defaults import settle
from vovnet.train.recipe import Recipe
from vovnet.train.report import EpochReport
from vovnet.train.sinks import CsvSink
from vovnet.train.step import Stepper

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SHIFT = 4  # pixels, each way
_TEST_BATCH = 500

RowHook = Callable[[dict[str, Any]], None]


def train_cifar(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    on_row: RowHook | None = None,
) -> dict[str, Any]:
    """Train a CIFAR network by `recipe` into `folder`, or go on after its last whole epoch.

    Leaves config.yaml, results.csv, state.safetensors and weights/last.safetensors. Returns the
    last line of results.csv; its "accuracy" is that on the test images, after the last epoch and
    after every `val_every`. Raises `UnknownNameError` for another model, `DataError` for data that
    are not CIFAR-10's, `DivergedError`.
    """
    if recipe.model not in SPECS:
        raise UnknownNameError("CIFAR network", recipe.model, SPECS)
    if len(recipe.data) > 1 or recipe.steps or recipe.minutes:
        raise VovnetError("CIFAR study: one folder of data, and a length in epochs")
    target = usable_device(device)
    if target.type == "cpu":
        keep_freed_memory()
    train, test = (read_cifar10(recipe.data[0], train=part) for part in (True, False))
    recipe = settle(recipe, len(train.labels), target)
    stepper = _stepper(recipe, train, target)
    progress = Progress()
    if resume:
        progress = load_state(folder / "state.safetensors", stepper.learned, recipe.optimizer)
    config = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    write_atomically(folder / "config.yaml", config.encode())
    results = CsvSink(folder / "results.csv", keep=resume)
    epochs = recipe.epochs or 1
    for epoch in range(progress.epoch, epochs):
        report = _train_epoch(stepper, train, recipe, progress, epochs)
        progress = replace(progress, epoch=epoch + 1, seconds=progress.seconds + report.seconds)
        due = epoch + 1 == epochs or (recipe.val_every and (epoch + 1) % recipe.val_every == 0)
        row = report.row({"accuracy": accuracy(stepper, test) if due else None})
        results.write(row)  # before the state: an epoch that is done again writes its row anew
        _save(folder, stepper.learned, recipe, progress, row)
        if on_row:
            on_row(row)
    return results.rows[-1] if results.rows else {}


def _stepper(recipe: Recipe, train: Cifar, device: torch.device) -> Stepper:
    torch.manual_seed(recipe.seed)
    network = create_model(recipe.model).to(device).to(memory_format=torch.channels_last)
    spec = InputSpec((SIDE, SIDE), "warp", *channel_statistics(train.images))
    detector = Detector(recipe.model, network, _cross_entropy, None, spec, NAMES).train()
    return Stepper(detector, network, begin(network, recipe, device), recipe, device)


def _cross_entropy(
    logits: Tensor, targets: Sequence[Target], image_size: tuple[int, int]
) -> dict[str, Term]:
    labels = torch.cat([t.labels for t in targets])
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return {"class": Term(total, total.new_full((), len(labels)))}


Triple = tuple[float, float, float]


def channel_statistics(images: np.ndarray) -> tuple[Triple, Triple]:
    """Mean and standard deviation of each channel of N×H×W×3 uint8, in 0..255."""
    values = np.arange(256)
    means, deviations = [], []
    for channel in range(3):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = float(np.average(values, weights=counts))
        means.append(mean)
        deviations.append(float(np.average((values - mean) ** 2, weights=counts)) ** 0.5)
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def augmented(
    images: np.ndarray, mean: Triple, flip: float, rng: np.random.Generator
) -> np.ndarray:
    """Images N×H×W×3, each moved by up to 4 pixels each way over the mean colour, and mirrored
    with the probability `flip`."""
    count, side = images.shape[:2]
    canvas = np.empty((count, side + 2 * _SHIFT, side + 2 * _SHIFT, 3), np.uint8)
    canvas[:] = np.round(mean)
    canvas[:, _SHIFT : _SHIFT + side, _SHIFT : _SHIFT + side] = images
    down, right = rng.integers(0, 2 * _SHIFT + 1, (2, count, 1))
    rows, columns = down + np.arange(side), right + np.arange(side)
    mirrored = rng.random((count, 1)) < flip
    columns = np.where(mirrored, columns[:, ::-1], columns)
    which = np.arange(count)[:, None, None]
    return canvas[which, rows[:, :, None], columns[:, None, :]]


def _batches(train: Cifar, recipe: Recipe, epoch: int, mean: Triple) -> Iterator[Batch]:
    """An epoch's batches, a function of (seed, epoch); images that fill no batch are left out."""
    rng = stream(recipe.seed, "epoch", epoch)
    size = min(recipe.batch or 1, len(train.labels))
    order = rng.permutation(len(train.labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        pixels = augmented(train.images[chosen], mean, recipe.flip, rng)
        labels = torch.from_numpy(train.labels[chosen]).split(1)
        yield Batch(
            torch.from_numpy(pixels), [Target(torch.zeros(0, 4), label) for label in labels]
        )


def _train_epoch(
    stepper: Stepper, train: Cifar, recipe: Recipe, progress: Progress, epochs: int
) -> EpochReport:
    report = EpochReport(progress.epoch, SIDE)
    size = min(recipe.batch or 1, len(train.labels))
    total = epochs * (len(train.labels) // size)
    began = time.perf_counter()
    for batch in _batches(train, recipe, progress.epoch, stepper.detector.input_spec.mean):
        report.lr = recipe.lr_at(progress.step, total)
        report.add(stepper([batch], report.lr), len(batch.targets))
        progress.step += 1
    report.seconds = time.perf_counter() - began
    return report


@torch.inference_mode()
def accuracy(stepper: Stepper, test: Cifar) -> float:
    """Share of the test images that the averaged network puts in their class."""
    network, detector = stepper.learned.average.network, stepper.detector
    right = 0
    for start in range(0, len(test.labels), _TEST_BATCH):
        part = slice(start, start + _TEST_BATCH)
        pixels = torch.from_numpy(test.images[part]).to(stepper.device)
        labels = torch.from_numpy(test.labels[part]).to(stepper.device)
        right += int((network(detector.normalize(pixels)).argmax(1) == labels).sum())
    return right / len(test.labels)


def _save(
    folder: Path, learned: Learned, recipe: Recipe, progress: Progress, row: dict[str, Any]
) -> None:
    facts = {"model": recipe.model, "names": NAMES, "recipe": recipe.to_dict(), "metrics": row}
    weights = learned.average.network.state_dict()
    save_tensors(folder / "weights" / "last.safetensors", weights, facts)
    save_state(folder / "state.safetensors", progress, learned, recipe.to_dict())
