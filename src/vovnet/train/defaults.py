"""What a recipe leaves open, chosen by the images, the machine and the model."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vovnet.device import bf16_pays, free_memory, threads_that_pay, threads_used
from vovnet.distributed import broadcast_object, processes_here, world_size
from vovnet.errors import VovnetError
from vovnet.limits import usable_cores
from vovnet.models.detector import Detector
from vovnet.train.recipe import Recipe, family_of, usual_step

# Images that a model is shown in all, from scratch; fine-tuning takes a quarter.
_SHOWN = {"vovdet_nano": 120_000, "vovdet_small": 120_000}
_SHOWN_ELSE = 20_000
_MOST_EPOCHS = 300
_LEAST_EPOCHS = 12
_STEPS_PER_EPOCH = 8  # at least, as far as the images allow
_FINE_TUNE_LR = 0.3  # of the rate from scratch
_OF_FREE_MEMORY = 0.6


def settle(
    recipe: Recipe, images: int, device: torch.device, detector: Detector | None = None
) -> Recipe:
    """The recipe with nothing left open, so that it is the run's own: resumed, a run must compute
    as it did. `images` are those to train on; the memory that `detector` takes decides about the
    parts of a step.

    Raises `VovnetError` if the batch cannot be shared out among the processes, or takes more parts
    than CUDA graphs can be recorded of.
    """
    recipe = on_machine(recipe, device)
    usual, rate = usual_step(recipe.model, recipe.optimizer)
    if recipe.weights is not None:
        rate *= _FINE_TUNE_LR
    values: dict[str, Any] = {"lr": recipe.lr or rate}
    if detector is not None:
        values["imgsz"] = recipe.imgsz or detector.input_spec.size[0]
    processes, parts = world_size(), recipe.accumulate or 1
    batch = recipe.batch or _batch(usual, images, parts * processes)
    if batch % (parts * processes) or images < parts * processes:
        raise VovnetError(
            f"batch {batch} of {images} images cannot be shared by {processes} processes in "
            f"{parts} parts; give a --batch that {parts * processes} divides, or fewer of them"
        )
    # No step has more images than there are.
    values["batch"] = batch = min(batch, images - images % (parts * processes))
    if recipe.accumulate is None and detector is not None:
        size = recipe.imgsz or detector.input_spec.size[0]
        beside = processes_here() if device.type == "cpu" else 1
        free = _OF_FREE_MEMORY * free_memory(device) / beside
        room = free / bytes_per_image(detector, size)
        parts = _parts(batch // processes, max(room, 2.0))
    values["accumulate"] = parts
    if recipe.graphs and parts * processes > 1:
        raise VovnetError(
            f"recipe: graphs are for a batch that one process computes at once, not {processes} in "
            f"{parts} parts each; leave graphs out, or give a smaller --batch"
        )
    if recipe.epochs is None and recipe.steps is None and recipe.minutes is None:
        values["epochs"] = _epochs(recipe, images)
    # Two processes may see other machines, or time a trial differently.
    return broadcast_object(replace(recipe, **values))


def on_machine(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with nothing left open about how it uses the machine, whatever it trains on."""
    threads = recipe.threads or _threads(device)
    values: dict[str, Any] = {"threads": threads}
    if recipe.workers is None:
        values["workers"] = _workers(device)
    if recipe.amp == "auto":
        with threads_used(threads):
            values["amp"] = _precision(device)
    return broadcast_object(replace(recipe, **values))


def _batch(usual: int, images: int, parts: int) -> int:
    """The family's usual batch, less if an epoch would have few steps, and two for every one of the
    `parts`, which batch norms need."""
    wanted = min(usual, max(2, images // _STEPS_PER_EPOCH))
    return max(2, wanted // parts) * parts


def equal_parts(images: int) -> list[int]:
    """The numbers of equal parts that `images` can be computed in, with two images or more in each,
    which batch norms need."""
    return [n for n in range(1, images + 1) if images % n == 0 and images // n >= min(2, images)]


def _parts(images: int, room: float) -> int:
    """The fewest equal parts of `images` that are no larger than `room`, else the most."""
    parts = equal_parts(images)
    return next((n for n in parts if images // n <= room), parts[-1])


def bytes_per_image(detector: Detector, size: int) -> int:
    """Memory that training takes for one image of size×size pixels, found on the meta device: what
    the way back needs of the way forward, and as much again for its gradients.

    The second stage of a two-stage detector, whose cost lies in the images, is not in it.
    """
    network = copy.deepcopy(detector.network).to("meta").train()
    saved: dict[int, Tensor] = {}  # by storage: many are saved twice

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    images = torch.empty(2, 3, size, size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(images)  # kept until all has been counted
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    total = sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in own)
    del outputs
    return 2 * total // len(images)


def _epochs(recipe: Recipe, images: int) -> int:
    shown = _SHOWN.get(family_of(recipe.model), _SHOWN_ELSE)
    if recipe.weights is not None:
        shown //= 4
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, round(shown / images)))


def _workers(device: torch.device) -> int:
    """A CPU computes on the cores that workers would take, and a single busy worker makes the
    threads of all the others' cores wait for one: below 8 cores there is none. A GPU leaves them
    all, and shares them with the other GPUs' processes."""
    cores = usable_cores() // processes_here()
    if device.type == "cpu":
        return min(8, cores // 8)
    return max(1, min(16, cores - 1))


def _threads(device: torch.device) -> int:
    """Processes that share a machine were given their share of its threads when they started."""
    if device.type == "cpu" and world_size() == 1:
        return threads_that_pay()
    return torch.get_num_threads()


def _precision(device: torch.device) -> str:
    return "bf16" if bf16_pays(device.type) else "off"
