"""Every runtime and precision against torch eager in float32."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vovnet.errors import VovnetError
from vovnet.models import create_model
from vovnet.models.detector import Detector
from vovnet.runtimes import RUNTIMES, open_onnx, open_runtime, write_onnx

# Name -> number of classes and image size.
# Those of SSD's kind at the size they are made for: below, a last pool has less than a window.
NETWORKS = {
    "vovnet27_slim": (0, (65, 67)),  # odd: rows that do not fill a vector register
    "ese_vovnet19b_slim_dw": (0, (64, 64)),
    "peleenet": (0, (152, 152)),  # pools 19 cells to 10, the last of them half beyond the edge
    "vovdet_nano": (3, (64, 96)),
    "dsod300-vovnet27_slim": (4, (300, 300)),
    "refinedet320-vovnet27_slim": (4, (320, 320)),
}
BATCH = 2


def noise(name: str, seed: int, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *NETWORKS[name][1], generator=generator)


# Relative L2 error of any output. bf16 rounds by at most 2^-9, so a chain of fifty layers by some
# √50 times that: 0.014. int8 is calibrated and judged on noise with random weights: it shows that
# the arithmetic is right, and says nothing about accuracy.
BOUND = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-3, "int8": 1e-1}

QUICK = [("vovnet27_slim", r, p) for r in RUNTIMES for p in RUNTIMES[r].precisions.get("cpu", ())]
QUICK += [("vovdet_nano", runtime, "fp32") for runtime in ("onnxruntime", "openvino", "ncnn")]
# Gates are converted by ncnn's own code, and so are the pools' edges.
QUICK += [(name, "ncnn", "fp32") for name in ("ese_vovnet19b_slim_dw", "peleenet")]
COMPILED = ("compile", "aoti")


def cases():
    """All of them; those that take long or prove little more are marked slow."""
    for name in NETWORKS:
        for runtime, how in RUNTIMES.items():
            for precision in how.precisions.get("cpu", ()):
                case = (name, runtime, precision)
                slow = case not in QUICK or runtime in COMPILED
                yield pytest.param(*case, marks=[pytest.mark.slow] * slow, id="-".join(case))


@torch.no_grad()
def keep_scale(network: nn.Module) -> None:
    """Random convolutions that hand a signal on as large as it came, as trained ones do.

    Kaiming's fan-out, from which the networks start, amplifies wherever a layer narrows: PeleeNet's
    dense layers to 1e5, each drowning what it is joined to, so that the roundings of fifty layers
    add up instead of averaging out, and int8's one scale for all channels fits only the last.
    Biases as large as the signal show errors that prior probabilities would hide.
    """
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            gain = "relu" if module.groups == 1 else "linear"  # depthwise: no ReLU follows
            nn.init.kaiming_normal_(module.weight, nonlinearity=gain, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)


@pytest.fixture(scope="session")
def network(randomise_norms) -> Callable[[str], nn.Module]:
    """One of `NETWORKS` by its name, always the same object, in train mode as users leave it."""
    made: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in made:
            torch.manual_seed(0)
            model = create_model(name, NETWORKS[name][0])
            made[name] = model.network if isinstance(model, Detector) else model
            randomise_norms(made[name])
            keep_scale(made[name])
        return made[name].train()

    return get


@pytest.fixture(scope="session")
def onnx_file(network, tmp_path_factory) -> Callable[[str], Path]:
    """The network's ONNX file for batches of `BATCH`, exported once."""
    folder = tmp_path_factory.mktemp("onnx")

    def get(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            write_onnx(network(name), noise(name, 0), path)
        return path

    return get


@torch.no_grad()
def eager(network, images):
    return tree_leaves(copy.deepcopy(network).eval()(images))


def opened(network, onnx_file, name, runtime, precision):
    calibration = [noise(name, seed, batch=3) for seed in (2, 3)] if precision == "int8" else ()
    try:
        if RUNTIMES[runtime].from_onnx:
            return open_onnx(onnx_file(name), runtime, precision, calibration=calibration)
        return open_runtime(network(name), noise(name, 0), runtime, precision)
    except VovnetError as error:
        if "this processor does not compute" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize(("name", "runtime", "precision"), list(cases()))
def test_outputs_are_those_of_eager(network, onnx_file, name, runtime, precision):
    images = noise(name, 1)
    before = images.clone()
    with opened(network, onnx_file, name, runtime, precision) as run:
        assert (run.runtime, run.precision, run.shape) == (runtime, precision, tuple(images.shape))
        assert run.version[0].isdigit()
        outputs = run(images)
        run(noise(name, 4))  # must not write over what was given out
    assert torch.equal(images, before)
    for ours, theirs in zip(outputs, eager(network(name), before), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= BOUND[precision] * theirs.norm()


@pytest.mark.parametrize("precision", ["bf16"])
def test_low_precision_is_not_float32_in_disguise(network, onnx_file, precision):
    name = "vovnet27_slim"
    images = noise(name, 1)
    reference = eager(network(name), images)[-1]
    for runtime in ("eager", "ncnn"):
        with opened(network, onnx_file, name, runtime, precision) as run:
            assert (run(images)[-1] - reference).norm() > 1e-3 * reference.norm()
