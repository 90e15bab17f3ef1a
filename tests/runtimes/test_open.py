"""What opening a runtime promises: nothing touched, nothing left behind, one line when it fails."""

import copy
import logging
import subprocess
import sys
import tempfile
import warnings

import pytest
import torch
from torch import nn

from vovnet.detect.sessions import openvino_config
from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError
from vovnet.runtimes import open_onnx, open_runtime, write_onnx
from vovnet.runtimes.runner import Settings


class Bessel(nn.Module):
    """An operator that no runtime here has."""

    def forward(self, images):
        return torch.special.bessel_j0(images)


class Failing(nn.Module):
    def forward(self, images):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nsecond line")


def tiny(channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU())


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("eager", "bf16"),
        ("channels_last", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
        ("ncnn", "bf16"),
        pytest.param("compile", "bf16", marks=pytest.mark.slow),
        pytest.param("aoti", "fp32", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_touched_or_left(runtime, precision, tmp_path, monkeypatch, capfd):
    network = tiny().train()
    state = copy.deepcopy(network.state_dict())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    filters, level, threads = (
        warnings.filters[:],
        logging.root.manager.disable,
        torch.get_num_threads(),
    )
    calibration = [images(2, 3, 16, 16)] if precision == "int8" else ()
    x = images(2, 3, 16, 16)
    run = open_runtime(network, x, runtime, precision, threads=1, calibration=calibration)
    run(x)
    run.close()
    run.close()
    assert not list(tmp_path.glob("vovnet-*"))
    assert capfd.readouterr().out == ""  # --json owns standard output
    assert (warnings.filters[:], logging.root.manager.disable) == (filters, level)
    assert torch.get_num_threads() == threads
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert network[0].weight.dtype == torch.float32
    assert network[0].weight.is_contiguous()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_runner_says_what_it_takes():
    x = images(1, 3, 16, 16)
    with open_runtime(tiny(), x, "eager") as run, pytest.raises(VovnetError) as error:
        run(images(2, 3, 16, 16))
    assert one_line(error) == "eager was opened for images 1×3×16×16, not 2×3×16×16"
    with pytest.raises(VovnetError, match="closed"):
        run(x)


def test_threads_are_set_for_the_run_only():
    seen = []

    class Watching(nn.Module):
        def forward(self, images):
            seen.append(torch.get_num_threads())
            return images

    before = torch.get_num_threads()
    other = before + 1
    x = images(1, 3, 8, 8)
    open_runtime(Watching(), x, "eager", threads=other)(x)
    open_runtime(Watching(), x, "eager")(x)
    assert seen == [other, before]
    assert torch.get_num_threads() == before


def test_only_the_runtime_that_is_asked_for_is_loaded():
    code = (
        "import sys, torch; from vovnet.runtimes import open_runtime\n"
        "x = torch.zeros(1, 3, 8, 8)\n"
        "open_runtime(torch.nn.Conv2d(3, 4, 3), x, 'ncnn')(x)\n"
        "others = {'onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf', 'tensorrt'}\n"
        "print('ncnn' in sys.modules, others & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True set()\n"


@pytest.mark.slow
def test_nncf_reports_to_nobody(tmp_path):
    """Its telemetry is off under pytest anyway, hence a process of its own."""
    code = (
        "import sys; from vovnet.runtimes.on_openvino import _import_nncf; _import_nncf()\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "print(type(telemetry).__name__, 'openvino_telemetry' in sys.modules)"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "MagicMock False\n"
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "onnxrutime"}, "unknown runtime 'onnxrutime'. Did you mean onnxruntime?"),
        (
            {"runtime": "onnxruntime", "precision": "bf16"},
            "onnxruntime has no bf16 on cpu; it has fp32, int8",
        ),
        ({"runtime": "tensorrt"}, "tensorrt runs on cuda, not on cpu"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"device": "cuda:9"}, "device cuda:9: not usable here"),
        ({"example": images(3, 8, 8)}, "example must be N×3×H×W float32, not 3×8×8 float32"),
        (
            {"example": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)},
            "example must be N×3×H×W float32, not 1×3×8×8 uint8",
        ),
    ],
)
def test_what_cannot_be_had(changes, message):
    arguments = {"example": images(1, 3, 8, 8), "runtime": "eager"} | changes
    with pytest.raises(VovnetError) as error:
        open_runtime(tiny(), **arguments)
    assert one_line(error).startswith(message)


def test_a_runtime_is_a_name_among_names():
    with pytest.raises(UnknownNameError):
        open_runtime(tiny(), images(1, 3, 8, 8), "")


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ((), "int8 needs calibration images"),
        ([images(1, 3, 8, 9)], "calibration images are 3×8×9; the network runs on 3×8×8"),
    ],
)
def test_int8_wants_images_like_those_it_will_see(calibration, message):
    settings = Settings("int8", torch.device("cpu"), 1, calibration)
    with pytest.raises(VovnetError, match=message):
        settings.calibration_batches((2, 3, 8, 8))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_of_a_file_whose_weights_lie_in_a_second_one(runtime, tmp_path):
    import onnx

    write_onnx(tiny(64), images(1, 3, 8, 8), tmp_path / "one.onnx")
    options = {"save_as_external_data": True, "location": "two.data", "size_threshold": 0}
    onnx.save_model(onnx.load_model(tmp_path / "one.onnx"), tmp_path / "two.onnx", **options)
    assert (tmp_path / "two.data").stat().st_size > 0
    x = images(1, 3, 8, 8)
    with (
        open_onnx(tmp_path / "two.onnx", runtime, "int8", calibration=[x]) as run,
        open_onnx(tmp_path / "one.onnx", runtime, "int8", calibration=[x]) as other,
    ):
        assert torch.equal(run(x)[0], other(x)[0])


def test_calibration_images_come_in_the_batches_of_the_network():
    given = [images(3, 3, 2, 2), images(2, 3, 2, 2) + 9]
    settings = Settings("int8", torch.device("cpu"), 1, given)
    batches = settings.calibration_batches((4, 3, 2, 2))
    together = torch.cat(given)
    assert [len(batch) for batch in batches] == [4, 4]
    assert torch.equal(torch.cat(batches), torch.cat([together, together[:3]]))


@pytest.mark.parametrize("runtime", ["onnxruntime", "ncnn"])
def test_an_operator_that_is_not_there_is_named(runtime):
    with pytest.raises(VovnetError) as error:
        open_runtime(Bessel(), images(1, 3, 8, 8), runtime)
    assert "bessel_j0" in one_line(error)


@pytest.mark.parametrize("runtime", ["onnxruntime", "ncnn"])
def test_a_network_that_fails_says_why(runtime):
    with pytest.raises(VovnetError) as error:
        open_runtime(Failing(), images(1, 3, 8, 8), runtime)
    assert "mat1 and mat2 shapes cannot be multiplied" in one_line(error)


@pytest.mark.parametrize(
    ("runtime", "package", "told"),
    [
        ("onnxruntime", "onnxscript", "'vovnet[export]'"),
        # By themselves: what is exported runs without torch, which the extra brings.
        ("onnxruntime", "onnxruntime", "onnxruntime"),
        ("openvino", "openvino", "openvino"),
        ("ncnn", "ncnn", "ncnn"),
    ],
)
def test_a_missing_package_says_how_to_have_it(runtime, package, told, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as error:
        open_runtime(tiny(), images(1, 3, 8, 8), runtime)
    assert package in one_line(error)
    assert str(error.value).endswith(f"pip install {told}")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["compile", "aoti"])
def test_no_compiler_is_said(runtime):
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such",)}), pytest.raises(VovnetError) as error:
        open_runtime(tiny(5), images(1, 3, 8, 8), runtime)
    assert "needs a C++ compiler" in one_line(error)


class OldProcessor:
    """OpenVINO's `Core` as far as it is asked for what the processor can do."""

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8", "BIN"]


def test_a_format_that_the_processor_lacks_is_refused():
    with pytest.raises(VovnetError, match="does not compute in bf16; it has fp32"):
        openvino_config(OldProcessor(), "bf16", 2)
    assert openvino_config(OldProcessor(), "fp32", 2) == {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 2,
        "INFERENCE_PRECISION_HINT": "f32",
    }


def test_a_file_for_any_batch(tmp_path):
    import onnxruntime

    network = tiny().eval()
    write_onnx(network, images(1, 3, 16, 16), tmp_path / "any.onnx", dynamic_batch=True)
    assert [path.name for path in tmp_path.iterdir()] == ["any.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "any.onnx")
    for batch in (1, 2, 5):
        x = images(batch, 3, 16, 16)
        (output,) = session.run(["output0"], {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), network(x).detach())


SIGNALS = """
import faulthandler, os, signal
from torch import nn, ones
from vovnet.runtimes import open_runtime
faulthandler.enable()  # has signals handled on a stack of their own, as OpenVINO does
runners = [open_runtime(nn.Conv2d(3, 4, 3), ones(1, 3, 32, 32), "openvino") for _ in range(2)]
signal.signal(signal.SIGINT, lambda *_: print("handled"))
while runners:
    del runners[0]
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.slow
def test_signals_do_not_crash_a_process_that_had_openvino_runners():
    found = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "handled\nhandled\n"), found.stderr
