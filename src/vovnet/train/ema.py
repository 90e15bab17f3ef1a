"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import Tensor, nn

_Pairs = tuple[list[Tensor], list[Tensor]]


class WeightAverage:
    """A copy of `network` whose weights and statistics trail it.

    The decay is min(`decay`, (1+n)/(10+n)) after n updates, so that a short run's average is not
    still full of its beginning.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._source: nn.Module | None = None  # whose tensors are paired with ours
        self._floats: _Pairs = ([], [])
        self._integers: _Pairs = ([], [])

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards `network`; integer buffers are copied.

        Neither network may be moved to another device or type between two updates.
        """
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        if network is not self._source:
            self._source, self._floats, self._integers = network, *self._paired(network)
        # All tensors together: a GPU would start a kernel for each.
        torch._foreach_lerp_(*self._floats, 1 - decay)
        if self._integers[0]:
            torch._foreach_copy_(*self._integers)

    def _paired(self, network: nn.Module) -> tuple[_Pairs, _Pairs]:
        """The tensors of both networks, floating-point ones and the others."""
        floats, integers = ([], []), ([], [])
        for pair in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            kind = floats if pair[0].is_floating_point() else integers
            for side, tensor in zip(kind, pair, strict=True):
                side.append(tensor)
        return floats, integers
