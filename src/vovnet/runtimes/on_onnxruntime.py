"""ONNX Runtime: float32, or int8 by static quantization (QDQ)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vovnet.detect.sessions import open_onnxruntime
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.runtimes.convert import converting
from vovnet.runtimes.onnx_file import read_input
from vovnet.runtimes.runner import Runner, Settings


def open_file(path: Path, shape: Sequence[int], settings: Settings) -> Runner:
    """An ONNX file, made ready for images of the given shape.

    Raises `VovnetError` for an operator that onnxruntime does not have.
    """
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        if settings.precision == "int8":
            batches = settings.calibration_batches(shape)
            path = quantize(path, Path(folder), Reader(read_input(path)[0], batches))
        session = open_onnxruntime(path, settings.threads, _providers(settings))
    (name,) = session.inputs

    def compute(images: Tensor) -> list[Tensor]:
        outputs = session.run({name: images.numpy(force=True)})
        return [torch.from_numpy(output).to(settings.device).float() for output in outputs]

    return Runner(
        compute,
        runtime="onnxruntime",
        precision=settings.precision,
        version=session.version,
        shape=shape,
        device=settings.device,
    )


def _providers(settings: Settings) -> list[Any] | None:
    if settings.device.type != "cuda":
        return None
    ort = _import_onnxruntime()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise VovnetError(
            f"this onnxruntime cannot use {settings.device}; install onnxruntime-gpu instead"
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime") from None
    return onnxruntime


class Reader:
    """What the quantizer asks for calibration data: one named batch a time, None at the end."""

    def __init__(self, name: str, batches: list[Tensor]) -> None:
        self.feeds = iter([{name: batch.numpy()} for batch in batches])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        return next(self.feeds, None)


def quantize(path: Path, folder: Path, reader: Reader, keep: Sequence[str] = ()) -> Path:
    """A new file with unsigned 8-bit activations and signed 8-bit weights, per channel.

    Without VNNI the processor adds pairs of products in 16 bits, which saturate: there the
    weights get 7 bits. Nodes named in `keep` stay in floating point.
    """
    _import_onnxruntime()
    import onnx
    from onnxruntime import quantization as q

    whole, prepared, quantized = (folder / f"{n}.onnx" for n in ("whole", "prepared", "quantized"))
    with converting("int8"):
        onnx.save_model(onnx.load_model(path), whole)  # with weights that lay in a second file
        q.quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared,
            quantized,
            reader,  # pyrefly: ignore[bad-argument-type]  # it need not be a subclass
            quant_format=q.QuantFormat.QDQ,
            nodes_to_exclude=list(keep),
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            per_channel=True,
            reduce_range=not torch.cpu._is_vnni_supported(),
        )
    return quantized
