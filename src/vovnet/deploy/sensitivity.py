"""Which convolutions int8 hurts most: each is rounded alone, and its error is measured.

Convolutions are told by their number in the order in which they are computed; that is the order
of the nodes in the network's ONNX file too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vovnet.models.detector import Detector

_IMAGES = 16  # enough to rank by


@torch.no_grad()
def most_sensitive(detector: Detector, pixels: np.ndarray) -> list[tuple[int, str]]:
    """Number and name of every convolution, the one whose rounding changes the outputs most first.

    `pixels` are prepared pictures N×H×W×3 uint8, of which a few are used.
    """
    images = torch.from_numpy(detector.input_spec.normalize(pixels[:_IMAGES]))
    network = detector.network
    with _calls(network) as called:
        exact = _outputs(network, images)
    errors: list[tuple[float, int, str]] = []
    for number, (name, module) in enumerate(called):
        with _rounded(module):
            errors.append((_error(_outputs(network, images), exact), number, name))
    return [(number, name) for _, number, name in sorted(errors, reverse=True)]


def _outputs(network: nn.Module, images: Tensor) -> list[Tensor]:
    return [x for x in tree_leaves(network(images)) if isinstance(x, Tensor)]


def _error(outputs: list[Tensor], exact: list[Tensor]) -> float:
    """‖outputs − exact‖ / ‖exact‖ of each tensor, summed."""
    pairs = zip(outputs, exact, strict=True)
    return float(sum((a - b).norm() / b.norm().clamp(min=1e-9) for a, b in pairs))


@contextmanager
def _calls(network: nn.Module) -> Iterator[list[tuple[str, nn.Conv2d]]]:
    """The convolutions in the order in which they are called meanwhile."""
    called: list[tuple[str, nn.Conv2d]] = []
    handles = [
        module.register_forward_pre_hook(lambda m, _, name=name: called.append((name, m)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    yield called
    for handle in handles:
        handle.remove()


@contextmanager
def _rounded(module: nn.Conv2d) -> Iterator[None]:
    """Weights with 8 bits a channel, and the input with 8 bits between its extremes."""
    weight = module.weight.detach()
    scale = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    module.weight.data = (weight / scale).round() * scale

    def round_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        x = inputs[0]
        low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
        step = ((high - low) / 255).clamp(min=1e-12)
        return ((x - low) / step).round() * step + low

    handle = module.register_forward_pre_hook(round_input)
    yield
    handle.remove()
    module.weight.data = weight
