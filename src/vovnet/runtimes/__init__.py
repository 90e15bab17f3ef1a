"""A network in every runtime there is: the same numbers from torch, ONNX Runtime, OpenVINO, ncnn…

Conversion works on a copy in eval mode; the caller's network stays as it is. Packages are
imported when their runtime is opened.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vovnet.device import usable_device
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.runtimes import on_ncnn, on_onnxruntime, on_openvino, on_tensorrt, on_torch
from vovnet.runtimes.convert import write_onnx
from vovnet.runtimes.onnx_file import fill_shape
from vovnet.runtimes.runner import Precision, Runner, Settings

__all__ = [
    "RUNTIMES",
    "SLOW_TO_OPEN",
    "Precision",
    "Runner",
    "Runtime",
    "open_onnx",
    "open_runtime",
    "write_onnx",
]


@dataclass(frozen=True)
class Runtime:
    """How a runtime is opened, and the precisions that it has on each kind of device.

    It converts a network by itself (`from_network`) or reads a float32 ONNX file (`from_onnx`).
    """

    precisions: dict[str, tuple[Precision, ...]]
    from_network: Callable[[nn.Module, Tensor, Settings], Runner] | None = None
    from_onnx: Callable[[Path, Sequence[int], Settings], Runner] | None = None


_TORCH: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "bf16", "fp16"),
}
RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(_TORCH, on_torch.open_eager),
    "channels_last": Runtime(_TORCH, on_torch.open_channels_last),
    "cuda_graph": Runtime({"cuda": _TORCH["cuda"]}, on_torch.open_cuda_graph),
    "compile": Runtime(_TORCH, on_torch.open_compile),
    "aoti": Runtime(_TORCH, on_torch.open_aoti),
    "onnxruntime": Runtime(
        {"cpu": ("fp32", "int8"), "cuda": ("fp32",)}, from_onnx=on_onnxruntime.open_file
    ),
    "openvino": Runtime({"cpu": ("fp32", "bf16", "fp16", "int8")}, from_onnx=on_openvino.open_file),
    "ncnn": Runtime({"cpu": ("fp32", "bf16")}, on_ncnn.open_ncnn),
    "tensorrt": Runtime({"cuda": ("fp32", "fp16")}, from_onnx=on_tensorrt.open_file),
}
SLOW_TO_OPEN = ("compile", "aoti")  # a minute a model, and again at every start


def open_runtime(
    network: nn.Module,
    example: Tensor,
    runtime: str,
    precision: Precision = "fp32",
    *,
    device: str = "cpu",
    threads: int | None = None,
    calibration: Sequence[Tensor] = (),
) -> Runner:
    """Convert a network and make it ready to run on images of the example's shape (N×3×H×W).

    `threads` is torch's number unless given, in every runtime; `calibration` holds prepared
    images (each N×3×H×W) for int8. Raises `VovnetError` for a runtime or precision that cannot
    be had here and for a network that the runtime cannot run, `MissingExtraError` for a package
    that is not installed. To open one network in several ways that go by ONNX, `write_onnx` it
    once and use `open_onnx`: exporting takes most of the time.
    """
    how, settings = _choose(runtime, precision, device, threads, calibration)
    if example.ndim != 4 or not example.is_floating_point():
        raise VovnetError(f"example must be N×3×H×W float32, not {_kind(example)}")
    example = example.detach().to(settings.device, torch.float32)
    if how.from_network is not None:
        return how.from_network(network, example, settings)
    assert how.from_onnx is not None
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, example.cpu(), path)
        return how.from_onnx(path, example.shape, settings)


def open_onnx(
    path: Path,
    runtime: str = "onnxruntime",
    precision: Precision = "fp32",
    *,
    batch: int | None = None,
    image_size: tuple[int, int] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    calibration: Sequence[Tensor] = (),
) -> Runner:
    """The same for an ONNX file, or for OpenVINO the .xml of an IR, that takes one float32 input
    N×3×H×W; see `Runner.shape`.

    `batch` and `image_size` (height, width) fill in what the file leaves open. Raises
    `VovnetError` for a file that is not ONNX, has more inputs, or fixes another size.
    """
    how, settings = _choose(runtime, precision, device, threads, calibration)
    if how.from_onnx is None:
        able = ", ".join(name for name, other in RUNTIMES.items() if other.from_onnx)
        raise VovnetError(f"{runtime} does not run ONNX files; these do: {able}")
    if path.suffix == ".xml" and runtime != "openvino":
        raise VovnetError(f"{runtime} does not run an IR, only openvino does; give that")
    return how.from_onnx(path, fill_shape(path, batch, image_size), settings)


def _choose(
    runtime: str,
    precision: Precision,
    device: str,
    threads: int | None,
    calibration: Sequence[Tensor],
) -> tuple[Runtime, Settings]:
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    how, usable = RUNTIMES[runtime], usable_device(device)
    if usable.type not in how.precisions:
        raise VovnetError(f"{runtime} runs on {' and '.join(how.precisions)}, not on {device}")
    able = how.precisions[usable.type]
    if precision not in able:
        raise VovnetError(f"{runtime} has no {precision} on {device}; it has {', '.join(able)}")
    if threads is not None and threads < 1:
        raise VovnetError(f"threads must be at least 1, not {threads}")
    return how, Settings(precision, usable, threads or torch.get_num_threads(), calibration)


def _kind(tensor: Tensor) -> str:
    return f"{'×'.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}"
