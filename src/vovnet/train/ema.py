"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of `network` whose weights and statistics trail it.

    The decay is min(`decay`, (1+n)/(10+n)) after n updates, so that a short run's average is not
    still full of its beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards `network`; integer buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        floats, integers = [], []
        for pair in pairs:
            (floats if pair[0].is_floating_point() else integers).append(pair)
        # All tensors together: a GPU would start a kernel for each.
        torch._foreach_lerp_(*zip(*floats, strict=True), 1 - decay)
        if integers:
            torch._foreach_copy_(*zip(*integers, strict=True))
