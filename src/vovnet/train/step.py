"""One optimiser step: forward and back over the parts of its images, then the update."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vovnet.data.loader import Batch
from vovnet.errors import VovnetError, is_killed_worker, is_out_of_memory
from vovnet.models.detector import Detector
from vovnet.train.checkpoint import Learned
from vovnet.train.defaults import equal_parts
from vovnet.train.parts import StepLoss
from vovnet.train.recipe import Recipe
from vovnet.train.watch import DivergedError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LEAST_SCALE = 1.0  # of fp16's loss: below, it is not the scale that makes gradients overflow


class Stepper:
    """Takes optimiser steps on a detector, `forward` being its network as it is to be called:
    compiled, wrapped for several processes, or just itself."""

    def __init__(
        self,
        detector: Detector,
        forward: nn.Module,
        learned: Learned,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.detector = detector
        self.forward = forward
        self.learned = learned
        self.recipe = recipe
        self.device = device

    def __call__(self, parts: Sequence[Batch], lr: float) -> dict[str, float]:
        """One step on the images of all `parts`; returns the loss terms as numbers, over all parts
        and processes.

        Raises `DivergedError` before the weights, still good, are touched; `VovnetError` when
        memory runs out.
        """
        for group in (g for optimizer in self.learned.optimizers for g in optimizer.param_groups):
            group["lr"] = lr
        loss = StepLoss(self.learned.network.parameters(), self.learned.scaler, len(parts))
        for part in parts:
            try:
                self._forward_and_back(part, loss)
            except (RuntimeError, MemoryError) as error:
                # A loader's worker that was killed is told of wherever this process happens to be.
                if not is_out_of_memory(error) or is_killed_worker(error):
                    raise
                raise VovnetError(_memory_advice(part, self.recipe)) from None
        loss.finish()
        terms = loss.terms
        self.learned.watch.add(sum(terms.values()))
        self._update()
        return terms

    def _forward_and_back(self, part: Batch, loss: StepLoss) -> None:
        detector = self.detector
        pixels, targets = part.to(self.device)
        images = detector.normalize(pixels)
        dtype = AUTOCAST.get(self.recipe.amp)
        with self._without_sync(loss.parts):
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                outputs = self.forward(images)
                terms = detector.terms(outputs, targets, (images.shape[2], images.shape[3]))
            loss.add(terms)

    def _without_sync(self, parts: int) -> AbstractContextManager[None]:
        """Of several parts, the gradients are exchanged by `StepLoss`, after the last."""
        if isinstance(self.forward, DistributedDataParallel) and parts > 1:
            return self.forward.no_sync()
        return nullcontext()

    def _update(self) -> None:
        network, scaler = self.learned.network, self.learned.scaler
        for optimizer in self.learned.optimizers:
            scaler.unscale_(optimizer)
        clip = self.recipe.clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), clip))
        if math.isfinite(norm):
            for optimizer in self.learned.optimizers:
                scaler.step(optimizer)
            self.learned.average.update(network)
        elif not scaler.is_enabled() or scaler.get_scale() < _LEAST_SCALE:
            raise DivergedError(f"the gradient's norm became {norm}")
        scaler.update()  # fp16: the step that overflowed was left out, and the scale is cut
        network.zero_grad(set_to_none=True)


def _memory_advice(part: Batch, recipe: Recipe) -> str:
    count, height, width = part.pixels.shape[:3]
    done = recipe.accumulate or 1
    own = count * done  # images of a step in this process
    parts = next((n for n in equal_parts(own) if n > done), None)
    fewer = "a smaller --imgsz"
    if parts is not None:
        fewer = f"--accumulate {parts} (the same steps, in smaller parts), or {fewer}"
    return f"out of memory with {count} images of {width}x{height} at a time; give {fewer}"
