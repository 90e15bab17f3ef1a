"""ncnn: Winograd kernels for 3×3 convolutions, on processors that others do not write for.

The way there is torch.jit.trace, then the `pnnx` program, which folds batch norms.
"""

import importlib.util
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vovnet.detect.sessions import import_ncnn
from vovnet.detect.sessions import open_ncnn as open_ncnn_files
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.runtimes.convert import FlatNetwork, converting
from vovnet.runtimes.runner import Runner, Settings


def open_ncnn(network: nn.Module, example: Tensor, settings: Settings) -> Runner:
    """The network in ncnn; bf16 means bf16 weights and activations, summed in float32.

    ncnn has no batches: images run one after the other. Raises `VovnetError` naming the operator
    that ncnn does not have.
    """
    import_ncnn()
    flat = FlatNetwork(network)
    with converting("ncnn"), torch.no_grad():
        shapes = [output.shape for output in flat(example[:1])]
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        files = write_ncnn(flat, example, Path(folder))
        one = open_ncnn_files(*files, len(shapes), settings.precision, settings.threads)

    def compute(images: Tensor) -> list[Tensor]:
        rows = [one(image.numpy(force=True)) for image in images]
        columns = zip(*rows, strict=True)
        return [
            torch.cat([torch.from_numpy(part).reshape(shape) for part in column])
            for column, shape in zip(columns, shapes, strict=True)
        ]

    return Runner(
        compute,
        runtime="ncnn",
        precision=settings.precision,
        version=version("ncnn"),
        shape=example.shape,
        device=settings.device,
    )


def write_ncnn(network: nn.Module, example: Tensor, folder: Path) -> tuple[Path, Path]:
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
