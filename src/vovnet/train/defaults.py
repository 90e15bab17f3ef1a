"""What a recipe leaves open, chosen by the images, the machine and the model."""

import os
from dataclasses import replace
from typing import Any

import torch

from vovnet.device import bf16_pays
from vovnet.distributed import world_size
from vovnet.errors import VovnetError
from vovnet.train.recipe import Recipe, family_of, usual_step

# Images that a model is shown in all, from scratch; fine-tuning takes a quarter.
_SHOWN = {"vovdet_nano": 120_000, "vovdet_small": 120_000}
_SHOWN_ELSE = 20_000
_MOST_EPOCHS = 300
_LEAST_EPOCHS = 12
_STEPS_PER_EPOCH = 8  # at least, as far as the images allow
_FINE_TUNE_LR = 0.3  # of the rate from scratch


def settle(recipe: Recipe, images: int, device: torch.device) -> Recipe:
    """The recipe with nothing left open, so that it is the run's own: resumed, a run must compute
    as it did. `images` are those to train on.

    Raises `VovnetError` if the batch cannot be shared out among the processes.
    """
    batch, rate = usual_step(recipe.model)
    if recipe.weights is not None:
        rate *= _FINE_TUNE_LR
    parts = recipe.accumulate * world_size()
    values: dict[str, Any] = {
        "batch": recipe.batch or _batch(batch, images, parts),
        "lr": recipe.lr or rate,
        "workers": _workers(device) if recipe.workers is None else recipe.workers,
        "amp": _precision(device) if recipe.amp == "auto" else recipe.amp,
    }
    if recipe.epochs is None and recipe.steps is None and recipe.minutes is None:
        values["epochs"] = _epochs(recipe, images)
    if values["batch"] % parts:
        raise VovnetError(
            f"batch {values['batch']} cannot be shared by {world_size()} processes in "
            f"{recipe.accumulate} parts; give a --batch that {parts} divides"
        )
    return replace(recipe, **values)


def _batch(usual: int, images: int, parts: int) -> int:
    """The family's usual batch, less if an epoch would have few steps, and two
    for every one of the `parts`, which batch norms need."""
    wanted = min(usual, max(2, images // _STEPS_PER_EPOCH))
    return max(2, wanted // parts) * parts


def _epochs(recipe: Recipe, images: int) -> int:
    shown = _SHOWN.get(family_of(recipe.model), _SHOWN_ELSE)
    if recipe.weights is not None:
        shown //= 4
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, round(shown / images)))


def _workers(device: torch.device) -> int:
    """A CPU computes on the cores that workers would take: one for every four of them. A GPU
    leaves them all, and shares them with the other GPUs' processes."""
    cores = os.cpu_count() or 1
    if device.type == "cpu":
        return max(1, min(8, cores // 4))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, cores // beside - 1))


def _precision(device: torch.device) -> str:
    return "bf16" if bf16_pays(device.type) else "off"
