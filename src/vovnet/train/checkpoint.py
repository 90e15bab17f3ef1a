"""The state of a run between two steps: enough to go on as if it had never stopped."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vovnet.data.record import Dataset
from vovnet.distributed import broadcast_object, is_main
from vovnet.errors import DataError, VovnetError, WeightsError
from vovnet.models.weights import load_metadata, load_tensors, save_tensors
from vovnet.train.ema import WeightAverage
from vovnet.train.optimizers import make_optimizers
from vovnet.train.recipe import Recipe
from vovnet.train.watch import LossWatch


@dataclass
class Progress:
    """How far a run is: epochs done, optimiser steps and seconds of training in all; and of the
    epoch under way the steps done and its report so far. `warmed` is the share of its peak that the
    learning rate of a run by the clock has come to."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    step_of_epoch: int = 0
    warmed: float = 0.0
    images: int = 0  # of the data
    data: str = ""  # the data's fingerprint: a run cannot go on with others
    report: dict[str, Any] = field(default_factory=dict)


@dataclass
class Learned:
    """What a step changes: weights, their average, the optimisers' moments, fp16's loss scale, and
    what is known of the loss."""

    network: nn.Module
    average: WeightAverage
    optimizers: Sequence[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    watch: LossWatch = field(default_factory=LossWatch)


def fingerprint(dataset: Dataset) -> str:
    """Of the names of a dataset's classes and images, in their order, wherever they lie, and of
    what a teacher found in them."""
    names = [*dataset.names, *(record.path.name for record in dataset.records)]
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape"))
    for record in dataset.records:
        if record.scores is not None:
            for part in (record.boxes, record.labels, record.scores):
                digest.update(part.tobytes())
    return digest.hexdigest()


def check_resumable(folder: Path, begin_again: str) -> None:
    """Raise `VovnetError` if `folder` holds no state to go on from; `begin_again` is the verb that
    begins its run anew."""
    if (folder / "state.safetensors").is_file():
        return
    if not folder.is_dir():
        raise VovnetError(f"{folder}: no such folder; give a run's folder, such as runs/train/NAME")
    config = folder / "config.yaml"
    if config.is_file():
        raise VovnetError(
            f"{folder}: this run ended before it had saved anything; begin it again with: "
            f"vovnet {begin_again} --config {config}"
        )
    raise VovnetError(f"{folder}: no state.safetensors to resume from; give a run's folder")


def check_data(folder: Path, dataset: Dataset) -> None:
    """Raise `DataError` if the run in `folder` was trained on other images or classes."""
    saved = load_metadata(folder / "state.safetensors")
    images, data = saved.get("images", 0), saved.get("data")
    if images == len(dataset) and (not data or data == fingerprint(dataset)):  # older: unknown
        return
    had = f"{images} images when the run began, and have {len(dataset)} now"
    if images == len(dataset):
        had = "other images, classes or finds of a teacher when the run began"
    raise DataError(
        f"{folder}: the data had {had}; put them back, or start anew with --weights "
        f"{folder}/weights/last.safetensors"
    )


def begin(network: nn.Module, recipe: Recipe, device: torch.device) -> Learned:
    """A network at the start of its training by a settled recipe."""
    return Learned(
        network,
        WeightAverage(network, recipe.ema_decay),
        make_optimizers(network, recipe),
        torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16"),
    )


def save_state(path: Path, progress: Progress, learned: Learned, recipe: Mapping[str, Any]) -> None:
    """Write all of it as one safetensors file.

    Random state is not needed: every sample is a function of (seed, epoch, index), the learning
    rate and what else is drawn one of the step.
    """
    tensors = {f"network.{k}": v for k, v in learned.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in learned.average.network.state_dict().items()}
    for number, optimizer in enumerate(learned.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            found = {k: v for k, v in values.items() if isinstance(v, Tensor)}
            tensors |= {f"optimizer{number}.{index}.{k}": v for k, v in found.items()}
    metadata = {
        **asdict(progress),
        "average_updates": learned.average.updates,
        "scaler": learned.scaler.state_dict(),
        "watch": asdict(learned.watch),
        "recipe": recipe,
    }
    save_tensors(path, tensors, metadata)


def load_state(path: Path, learned: Learned, optimizer_name: str) -> Progress:
    """Put a saved state back into the given objects; returns how far the run had come.

    Of several processes the first one reads it for all: others may be on other machines. Raises
    `WeightsError` if the file is not a state of this network, or saved by another optimiser.
    """
    tensors, metadata = broadcast_object(load_tensors(path) if is_main() else None)
    saved_by = metadata.get("recipe", {}).get("optimizer", optimizer_name)
    if saved_by != optimizer_name:
        raise WeightsError(
            f"{path}: holds the moments of {saved_by}, and the run's config.yaml now says "
            f"{optimizer_name}; put {saved_by} back, or start anew with --weights"
        )
    try:
        learned.network.load_state_dict(_part(tensors, "network."))
        learned.average.network.load_state_dict(_part(tensors, "average."))
        learned.average.updates = metadata["average_updates"]
        fields = Progress.__dataclass_fields__
        progress = Progress(**{key: metadata[key] for key in fields if key in metadata})
        learned.watch = LossWatch(**metadata.get("watch", {}))
        if metadata.get("scaler"):
            learned.scaler.load_state_dict(metadata["scaler"])
    except (KeyError, TypeError, RuntimeError):
        raise WeightsError(
            f"{path}: not the state of this model's training run on these classes"
        ) from None
    for number, optimizer in enumerate(learned.optimizers):
        _load_optimizer(optimizer, _part(tensors, f"optimizer{number}."))
    return progress


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                # Fused steps walk through memory: moments must lie there as their parameter does.
                moments[name] = torch.empty_like(parameter).copy_(value)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
