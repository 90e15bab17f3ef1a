"""OpenVINO on the CPU: float32, bf16 and fp16 where the processor has them, int8 by NNCF."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vovnet.detect.sessions import (
    last_line,
    openvino_config,
    openvino_core,
    openvino_session,
)
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.runtimes.convert import converting
from vovnet.runtimes.runner import Runner, Settings


def open_file(path: Path, shape: Sequence[int], settings: Settings) -> Runner:
    """An ONNX file, compiled for images of the given shape.

    The precision is always said: on its own OpenVINO takes bf16 wherever the processor has it.
    Raises `VovnetError` for an operator that OpenVINO does not have, and for a format that this
    processor does not compute in.
    """
    core = openvino_core()
    config = openvino_config(core, settings.precision, settings.threads)
    try:
        model = core.read_model(path)
        model.reshape(list(shape))
        if settings.precision == "int8":
            model = quantize(model, settings.calibration_batches(shape))
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise VovnetError(f"{path.name}: openvino cannot run it: {last_line(error)}") from error
    session = openvino_session(compiled)
    (name,) = session.inputs

    def compute(images: Tensor) -> list[Tensor]:
        outputs = session.run({name: images.numpy(force=True)})
        return [torch.from_numpy(output).float() for output in outputs]

    return Runner(
        compute,
        runtime="openvino",
        precision=settings.precision,
        version=session.version,
        shape=shape,
        device=settings.device,
    )


def quantize(
    model: Any, batches: Sequence[Any], keep: Sequence[str] = (), skip: Sequence[str] = ()
) -> Any:
    """An OpenVINO model with int8 convolutions, calibrated on batches of its input (NNCF).

    Layers named in `keep`, and those that a pattern of `skip` matches, stay in floating point.
    """
    with converting("int8"):
        nncf = _import_nncf()
        data = nncf.Dataset([np.asarray(batch) for batch in batches])
        scope = nncf.IgnoredScope(names=list(keep), patterns=list(skip), validate=False)
        return nncf.quantize(model, data, subset_size=len(batches), ignored_scope=scope)


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
