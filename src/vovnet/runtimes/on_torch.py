"""torch itself: eager, channels-last, a CUDA graph, torch.compile and an AOTInductor package."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vovnet.device import threads_used
from vovnet.runtimes.convert import DTYPES, FlatNetwork, converting
from vovnet.runtimes.runner import Runner, Settings

# Freezing folds batch norms and lays weights out for the kernels that read them.
_INDUCTOR: dict[str, Any] = {"freezing": True}
_BEFORE_RECORDING = 3  # passes in which libraries choose their kernels and make their workspaces


def open_eager(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """The network as it is, operator by operator."""
    return _runner("eager", _flat(network, settings), example, settings)


def open_channels_last(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """Eager, with N×H×W×C in memory: most convolution kernels read that without reordering."""
    flat = _flat(network, settings).to(memory_format=torch.channels_last)

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        return flat(images.contiguous(memory_format=torch.channels_last))

    return _runner("channels_last", forward, example, settings)


@torch.inference_mode()
def open_cuda_graph(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """Channels-last, its kernels recorded once and started together: without it, a GPU waits for
    Python in small batches."""
    flat = _flat(network, settings).to(memory_format=torch.channels_last)
    images = example.to(settings.device).clone(memory_format=torch.channels_last)  # ours alone
    recording = torch.cuda.Stream(settings.device)
    recording.wait_stream(torch.cuda.current_stream(settings.device))
    with converting("a CUDA graph"), torch.cuda.stream(recording):
        for _ in range(_BEFORE_RECORDING):
            flat(images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=recording):
            outputs = flat(images)
    torch.cuda.current_stream(settings.device).wait_stream(recording)

    def forward(given: Tensor) -> tuple[Tensor, ...]:
        images.copy_(given)
        graph.replay()
        return tuple(output.clone() for output in outputs)  # the next call writes there again

    return _runner("cuda_graph", forward, example, settings)


def open_compile(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """torch.compile for the example's shape; compiling takes tens of seconds."""
    compiled = torch.compile(_flat(network, settings), dynamic=False, options=_INDUCTOR)
    runner = _runner("compile", compiled, example, settings)
    with converting("torch.compile"):
        runner(example)
    return runner


def open_aoti(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """An AOTInductor package, written, loaded and deleted; it runs without Python's overhead."""
    flat, example = _flat(network, settings), example.to(settings.device)
    with (
        tempfile.TemporaryDirectory(prefix="vovnet-") as folder,
        converting("AOTInductor"),
        torch.no_grad(),
        threads_used(settings.threads),
    ):
        program = torch.export.export(flat, (example,))
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(folder) / "network.pt2"),
            inductor_configs=_INDUCTOR | {"freezing": not _transposes(program.graph)},
        )
        loaded = torch._inductor.aoti_load_package(package)
    return _runner("aoti", loaded, example, settings)


def _transposes(graph: torch.fx.Graph) -> bool:
    """Whether a graph has transposed convolutions. AOTInductor's freezing scales the inputs of
    their weights by the batch norm that follows, instead of the outputs (torch 2.14)."""
    return any("conv_transpose" in str(node.target) for node in graph.nodes)


def _flat(network: nn.Module, settings: Settings) -> FlatNetwork:
    return FlatNetwork(network, DTYPES[settings.precision]).to(settings.device)


def _runner(
    runtime: str,
    forward: Callable[[Tensor], tuple[Tensor, ...]],
    example: Tensor,
    settings: Settings,
) -> Runner:
    def compute(images: Tensor) -> list[Tensor]:
        with threads_used(settings.threads):
            return list(forward(images))

    return Runner(
        compute,
        runtime=runtime,
        precision=settings.precision,
        version=str(torch.__version__),
        shape=example.shape,
        device=settings.device,
    )
