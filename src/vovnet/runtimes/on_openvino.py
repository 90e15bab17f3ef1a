"""OpenVINO on the CPU: float32, bf16 and fp16 where the processor has them, int8 by NNCF."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.runtimes.convert import converting
from vovnet.runtimes.runner import Precision, Runner, Settings

# Our name, OpenVINO's capability and its element type.
_HINTS: dict[Precision, tuple[str, str]] = {
    "fp32": ("FP32", "f32"),
    "bf16": ("BF16", "bf16"),
    "fp16": ("FP16", "f16"),
}


def open_file(path: Path, shape: Sequence[int], settings: Settings) -> Runner:
    """An ONNX file, compiled for images of the given shape.

    The precision is always said: on its own OpenVINO takes bf16 wherever the processor has it.
    Raises `VovnetError` for an operator that OpenVINO does not have, and for a format that this
    processor does not compute in.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "bench") from None
    core = _core()
    config = _config(core, settings)
    try:
        model = core.read_model(path)
        model.reshape(list(shape))
        if settings.precision == "int8":
            model = _quantize(model, settings.calibration_batches(shape))
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise VovnetError(f"{path.name}: openvino cannot run it: {_reason(error)}") from error
    request = compiled.create_infer_request()

    def compute(images: Tensor) -> list[Tensor]:
        results = request.infer([images.numpy(force=True)], share_inputs=True)
        # The request owns the memory of its results and writes there again.
        return [torch.from_numpy(results[port].copy()).float() for port in compiled.outputs]

    return Runner(
        compute,
        runtime="openvino",
        precision=settings.precision,
        version=openvino.__version__.partition("-")[0],
        shape=shape,
        device=settings.device,
    )


@cache
def _core() -> Any:
    """The process's only core.

    A core's CPU plugin has signals handled on a stack of its own until it is unloaded, and then
    puts back what it found. Of two that do not end in the reverse order, one puts back what the
    other has freed, and the next signal crashes the process. This one is never unloaded.
    """
    import openvino

    return openvino.Core()


def _config(core: Any, settings: Settings) -> dict[str, Any]:
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": settings.threads,
    }
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if settings.precision == "int8":
        return config  # what stays in floating point takes the fastest format there is
    capability, hint = _HINTS[settings.precision]
    if capability not in able:
        can = ", ".join(name for name, (word, _) in _HINTS.items() if word in able)
        raise VovnetError(f"this processor does not compute in {settings.precision}; it has {can}")
    return {**config, "INFERENCE_PRECISION_HINT": hint}


def _quantize(model: Any, batches: list[Tensor]) -> Any:
    with converting("int8"):
        nncf = _import_nncf()
        data = nncf.Dataset([batch.numpy() for batch in batches])
        return nncf.quantize(model, data, subset_size=len(batches))


def _import_nncf() -> Any:
    """NNCF without its telemetry, which would report every use to a web service unasked.

    It does without where the package that sends is missing, so that one is hidden meanwhile.
    """
    name = "openvino_telemetry"
    if "nncf" in sys.modules:
        return sys.modules["nncf"]
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.startswith(name)}
    sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        import nncf
    except ImportError:
        raise MissingExtraError("nncf", "bench") from None
    finally:
        del sys.modules[name]
        sys.modules.update(hidden)
    return nncf


def _reason(error: Exception) -> str:
    """OpenVINO's errors begin with the places in its source and end with what was wrong."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    return next(filter(None, reversed(lines)), "no reason given")
