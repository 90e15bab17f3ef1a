"""ncnn: Winograd kernels for 3×3 convolutions, on processors that others do not write for.

The way there is torch.jit.trace, then the `pnnx` program, which folds batch norms.
"""

import importlib.util
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.runtimes.convert import FlatNetwork, converting
from vovnet.runtimes.runner import Runner, Settings


def open_ncnn(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """The network in ncnn; bf16 means bf16 weights and activations, summed in float32.

    ncnn has no batches: images run one after the other. Raises `VovnetError` naming the operator
    that ncnn does not have.
    """
    ncnn = _import_ncnn()
    flat = FlatNetwork(network)
    with converting("ncnn"), torch.no_grad():
        shapes = [output.shape for output in flat(example[:1])]
    net = ncnn.Net()
    net.opt.num_threads = settings.threads
    net.opt.use_bf16_storage = settings.precision == "bf16"
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)  # on by default, and coarser than said
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        parameters, weights = write_ncnn(flat, example, Path(folder))
        if net.load_param(str(parameters)) or net.load_model(str(weights)):
            raise VovnetError("cannot convert to ncnn: it does not load what pnnx wrote")

    def one(image: Tensor) -> list[Tensor]:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image.numpy(force=True)))
        return [_output(extractor, i, shape) for i, shape in enumerate(shapes)]

    def compute(images: Tensor) -> list[Tensor]:
        rows = [one(image.contiguous()) for image in images]
        return [torch.cat(column) for column in zip(*rows, strict=True)]

    return Runner(
        compute,
        runtime="ncnn",
        precision=settings.precision,
        version=version("ncnn"),
        shape=example.shape,
        device=settings.device,
    )


def _import_ncnn() -> Any:
    try:
        import ncnn
    except ImportError:
        raise MissingExtraError("ncnn", "bench") from None
    return ncnn


def _output(extractor: Any, index: int, shape: torch.Size) -> Tensor:
    status, mat = extractor.extract(f"out{index}")
    if status:
        raise VovnetError(f"ncnn failed on output {index} with status {status}")
    return torch.from_numpy(np.array(mat)).reshape(shape)


def write_ncnn(network: FlatNetwork, example: Tensor, folder: Path) -> tuple[Path, Path]:
    """Write network.ncnn.param and network.ncnn.bin (float32) into the folder, for one image.

    Their input is called in0, their outputs out0, out1… Raises `VovnetError` naming an operator
    that ncnn does not have.
    """
    traced, image = folder / "network.pt", example[:1].contiguous()
    with converting("ncnn"), torch.no_grad():
        torch.jit.save(torch.jit.trace(network, image, check_trace=False), traced)
    shape = ",".join(map(str, image.shape))
    command = [str(_pnnx()), traced.name, f"inputshape=[{shape}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    parameters, weights = folder / "network.ncnn.param", folder / "network.ncnn.bin"
    if done.returncode or not parameters.exists():
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise VovnetError(f"cannot convert to ncnn: pnnx: {lines[-1] if lines else 'no reason'}")
    for line in parameters.read_text().splitlines()[2:]:
        operator = line.split()[0]
        if "::" in operator or operator.startswith(("pnnx.", "torch.", "F.", "nn.", "Tensor.")):
            raise VovnetError(f"cannot convert to ncnn: operator {operator} is not supported")
    return parameters, weights


def _pnnx() -> Path:
    """The program inside the package; importing that would load a second copy of its export."""
    spec = importlib.util.find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise MissingExtraError("pnnx", "bench")
    return Path(spec.origin).with_name("pnnx")
