"""An engine of TensorRT: tensors on an NVIDIA GPU in and out.

Written from the documentation: no machine with TensorRT was at hand, so that only the refusals have
been run. What an engine gives is checked like every runtime's: by the gate of `vovnet export`.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any

from vovnet.errors import MissingExtraError, VovnetError, WeightsError

Engine = Callable[[Any], list[Any]]


def open_engine(plan: bytes, source: str, device: Any = "cuda") -> Engine:
    """A function of one batch of images that returns its outputs, one call at a time.

    Raises `VovnetError` without a GPU or without the package, and `WeightsError`, which begins with
    `source`, for an engine that another TensorRT or another kind of GPU was built for.
    """
    trt = import_tensorrt()
    import torch

    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is None:
        known = f"TensorRT {trt.__version__}"
        raise WeightsError(f"{source}: is no engine of {known} for this GPU; export it again here")
    context, lock = engine.create_execution_context(), Lock()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    (taken,) = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    given = [name for name in names if name != taken]

    def run(images: Any) -> list[Any]:
        with lock:
            images = images.to(device).contiguous()
            context.set_input_shape(taken, tuple(images.shape))
            shapes = [tuple(context.get_tensor_shape(name)) for name in given]
            results = [torch.empty(shape, device=device) for shape in shapes]
            for name, tensor in zip([taken, *given], [images, *results], strict=True):
                context.set_tensor_address(name, tensor.data_ptr())
            context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream)
            return results

    return run


def import_tensorrt() -> Any:
    """The package, where there is a GPU for it; else raises `VovnetError`."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    if not torch.cuda.is_available():
        raise VovnetError(
            "TensorRT needs the NVIDIA GPU that its engine is for, and here is none; export there, "
            "or give --format onnx"
        )
    try:
        import tensorrt  # pyrefly: ignore[missing-import]
    except ImportError:
        raise VovnetError(
            "tensorrt is not installed; install it with: pip install tensorrt-cu13"
        ) from None
    return tensorrt
