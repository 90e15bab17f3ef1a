"""A network's passes forward and back as CUDA graphs: recorded once, then started as a whole.

From Python every kernel takes some ten microseconds to start, more than many of them run, and a
step of a small detector has a thousand.
"""

from typing import Any

import torch
from torch import Tensor, nn


class GraphedNetwork(nn.Module):
    """Calls `network` through graphs for inputs of the shape that was recorded, else directly.

    Outputs and gradients lie in memory that the next call writes again, so a step may have one
    call. Recording computes as autocast in `dtype` does (None: not at all).
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self._passes: dict[tuple[int, ...], Any] = {}  # one at most

    def record(self, count: int, size: int) -> None:
        """Record the passes for `count` images of size×size pixels, unless they are already. They
        replace those recorded before.

        Nothing else may use the GPU meanwhile, not even another thread of this process.
        """
        shape = (count, 3, size, size)
        if shape in self._passes:
            return
        self._passes.clear()
        device = next(self.network.parameters()).device
        images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        # The passes before recording must leave the statistics of batch norms as they are.
        buffers = list(self.network.buffers())
        before = [buffer.clone() for buffer in buffers]
        on = self.dtype is not None
        with (
            torch.cuda.device(device),  # whose streams are recorded
            torch.autocast("cuda", self.dtype, enabled=on, cache_enabled=False),
        ):
            recorded = torch.cuda.make_graphed_callables(
                _Passes(self.network), (images,), allow_unused_input=True
            )
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        self._passes[shape] = recorded

    def forward(self, images: Tensor) -> Any:
        """The network's outputs; see the class for how long they are there."""
        return self._passes.get(tuple(images.shape), self.network)(images)


class _Passes(nn.Module):
    """What one recording takes over: it replaces the `forward` of the module that it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images)
