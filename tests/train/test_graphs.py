"""What is recorded as CUDA graphs and when, on any machine; `test_gpu.py` replays real ones."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vovnet.train.graphs import GraphedNetwork


class Network(nn.Module):
    """A convolution, a norm with statistics, and a parameter that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Recorder:
    """In the place of torch's recording, which needs a GPU: it runs the passes as that does."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.casts: list[tuple[Any, ...]] = []
        self.devices: list[torch.device] = []
        self.replayed: list[int] = []

    def make(
        self, module: nn.Module, inputs: tuple[Tensor], allow_unused_input: bool = False
    ) -> Callable[[Tensor], Any]:
        number = len(self.inputs)
        self.inputs += inputs
        said = module(*inputs)
        torch.autograd.grad(said.sum(), tuple(module.parameters()), allow_unused=allow_unused_input)

        def replay(images: Tensor) -> Any:
            self.replayed.append(number)
            return said.detach()

        return replay

    def device(self, device: torch.device) -> Any:
        self.devices.append(device)
        return nullcontext()

    def autocast(self, *kind: Any, enabled: bool, cache_enabled: bool) -> Any:
        self.casts.append((*kind, enabled, cache_enabled))
        return nullcontext()


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorder.make)
    monkeypatch.setattr(torch.cuda, "device", recorder.device)
    monkeypatch.setattr(torch, "autocast", recorder.autocast)
    return recorder


def test_passes_are_recorded_once_and_replayed_for_their_shape_only(recorder):
    network = Network()
    graphed = GraphedNetwork(network, None)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    graphed.record(4, 32)
    graphed.record(4, 32)
    [images] = recorder.inputs
    assert images.shape == (4, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert recorder.devices == [torch.device("cpu")]
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    graphed(torch.rand(4, 3, 32, 32))
    assert recorder.replayed == [0]
    wanted, other = Network(), torch.rand(2, 3, 32, 32)
    wanted.load_state_dict(network.state_dict())
    assert torch.equal(graphed(other), wanted(other))  # another number of images: directly
    assert recorder.replayed == [0]


def test_a_recording_replaces_the_one_before(recorder):
    """Its memory is wanted: at another size of the schedule the old graph runs no more."""
    graphed = GraphedNetwork(Network(), None)
    graphed.record(4, 32)
    graphed.record(4, 64)
    graphed(torch.rand(4, 3, 64, 64))
    graphed(torch.rand(4, 3, 32, 32))
    assert recorder.replayed == [1]
    graphed.record(4, 32)
    assert len(recorder.inputs) == 3


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_it_is_recorded_in_the_type_of_the_steps(recorder, dtype):
    GraphedNetwork(Network(), dtype).record(1, 32)
    # Weights that autocast keeps from pass to pass would be frozen into the graph.
    assert recorder.casts == [("cuda", dtype, dtype is not None, False)]
