"""The state of a run between two epochs: enough to go on as if it had never stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vovnet.errors import WeightsError
from vovnet.models.weights import load_tensors, save_tensors
from vovnet.train.ema import WeightAverage


class Progress(NamedTuple):
    """How far a run is: epochs done and optimiser steps taken."""

    epoch: int
    step: int


def save_state(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: WeightAverage,
    optimizers: Sequence[torch.optim.Optimizer],
    recipe: Mapping[str, Any],
) -> None:
    """Write raw and averaged weights, optimiser moments and counters as one safetensors file.

    Random state is not needed: every sample is a function of (seed, epoch, index), the learning
    rate one of the step.
    """
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.network.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{number}.{index}.{k}": v for k, v in values.items()}
    metadata = {
        "epoch": progress.epoch,
        "step": progress.step,
        "average_updates": average.updates,
        "recipe": recipe,
    }
    save_tensors(path, tensors, metadata)


def load_state(
    path: Path,
    network: nn.Module,
    average: WeightAverage,
    optimizers: Sequence[torch.optim.Optimizer],
) -> Progress:
    """Put a saved state back into the given objects; returns how far the run had come.

    Raises `WeightsError` if the file is not a state of this network.
    """
    tensors, metadata = load_tensors(path)
    try:
        network.load_state_dict(_part(tensors, "network."))
        average.network.load_state_dict(_part(tensors, "average."))
        average.updates = metadata["average_updates"]
        progress = Progress(metadata["epoch"], metadata["step"])
    except (KeyError, RuntimeError):
        raise WeightsError(f"{path}: not the state of this model's training run") from None
    for number, optimizer in enumerate(optimizers):
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
