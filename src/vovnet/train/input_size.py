"""The side of the input, by the size of the objects, of the pictures, and the time there is."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vovnet.data.census import object_sides
from vovnet.data.placing import View
from vovnet.data.record import Dataset
from vovnet.device import threads_used
from vovnet.models.detector import Detector
from vovnet.train.recipe import Recipe
from vovnet.train.step import AUTOCAST

SEEN_WELL = 16.0  # pixels of an object's shorter side
_MOST_UNDER = 0.25  # share of objects that may be smaller
_LARGER = (1.25, 1.5, 1.75, 2.0, 2.5)  # times the model's own side
# Over the pictures, which a run by the clock has time for at least: from scratch, from weights.
_PASSES, _PASSES_FROM_WEIGHTS = 8, 5
_OF_THE_TIME = 0.6  # the rest is for losses, the optimiser, data and evaluations

Views = Callable[[int], float]  # input side -> training images that the run has time for


@dataclass(frozen=True)
class Fit:
    """The side that was chosen, in pixels, and one line that says why; "" if it is the model's."""

    side: int
    line: str = ""


def fit_input(recipe: Recipe, dataset: Dataset, detector: Detector, device: torch.device) -> Fit:
    """The input side for a run whose recipe leaves it open.

    It is the model's own, unless many objects are small in it, the pictures show more, and a run by
    the clock has the time to see every picture a few times at the larger side.
    """
    spec = detector.input_spec
    own = spec.size[0]
    if recipe.imgsz or recipe.resolution or spec.multiple is None:
        return Fit(recipe.imgsz or own)
    sides = object_sides(dataset, View((1, 1), spec.fit == "warp"), recipe.difficult)
    sizes = [max(record.size) for record in dataset.records if record.size is not None]
    if not len(sides) or not sizes:
        return Fit(own)
    most = int(np.median(sizes))
    allowed = [own]
    for factor in _LARGER:
        side = math.ceil(factor * own / spec.multiple) * spec.multiple
        if side < most + spec.multiple:
            allowed.append(side)
    if share_under(sides, own) <= _MOST_UNDER or len(allowed) == 1:
        return Fit(own)
    views = _views_in_time(recipe, detector, device)
    passes = _PASSES if recipe.weights is None else _PASSES_FROM_WEIGHTS
    return choose_side(sides, allowed, passes * len(dataset), views)


def share_under(sides: np.ndarray, side: int) -> float:
    """The share of objects, their `sides` shares of the input's, that are not seen well in it."""
    return float((sides * side < SEEN_WELL).mean())


def choose_side(sides: np.ndarray, allowed: list[int], least_views: float, views: Views) -> Fit:
    """The least of the `allowed` sides, of which the first is the model's own, that shows most
    objects well and leaves time for so many views; else the largest that leaves time."""
    own, *larger = allowed
    wanted = next((s for s in larger if share_under(sides, s) <= _MOST_UNDER), larger[-1])
    in_time = [side for side in larger if side <= wanted and views(side) >= least_views]
    side = in_time[-1] if in_time else own
    why = f"at {own}, the model's own, {share_under(sides, own):.0%} of the objects are under "
    why += f"{SEEN_WELL:.0f} pixels"
    if side == own:
        return Fit(own, f"input {own}: {why}; give more time, or --imgsz {larger[0]}")
    faster = f"--imgsz {own} trains {(side / own) ** 2:.1f} times as fast"
    late = f"; {wanted} shows more, but the time is too short" if side < wanted else ""
    return Fit(side, f"input {side}: {why}; {faster}{late}")


def _views_in_time(recipe: Recipe, detector: Detector, device: torch.device) -> Views:
    """By a trial of the network at its own side; without a clock there is always time."""
    if recipe.minutes is None:
        return lambda side: math.inf
    own = detector.input_spec.size[0]
    seconds = _seconds_an_image(detector, own, recipe, device)
    return lambda side: _OF_THE_TIME * 60 * recipe.minutes / (seconds * (side / own) ** 2)


def _seconds_an_image(
    detector: Detector, side: int, recipe: Recipe, device: torch.device, batch: int = 4
) -> float:
    """Forward and back through the network alone; the faster of two passes, after a first one."""
    # Of a copy: its norms would remember what they are shown.
    network = copy.deepcopy(detector.network).train().to(device)
    dtype = AUTOCAST.get(recipe.amp)
    images = torch.zeros(batch, 3, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    seconds = []
    with threads_used(recipe.threads), torch.random.fork_rng():
        for _ in range(3):
            began = time.perf_counter()
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                outputs = network(images)
            total = [output.float().sum() for output in outputs if output.requires_grad]
            torch.stack(total).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) / batch
