"""TensorRT on NVIDIA GPUs, built from an ONNX file by its Python API.

Written from the documentation: no machine with TensorRT was at hand, so that nothing beyond the
refusals has been run. Numbers are checked like every runtime's, against torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vovnet.errors import VovnetError
from vovnet.runtimes.runner import Runner, Settings


def open_file(path: Path, shape: Sequence[int], settings: Settings) -> Runner:
    """An ONNX file as an engine for images of the given shape, built in minutes.

    The network is strongly typed: it computes in the format that the file says. Raises
    `VovnetError` for an operator that TensorRT does not have.
    """
    try:
        import tensorrt as trt  # pyrefly: ignore[missing-import]
    except ImportError:
        raise VovnetError(
            "tensorrt is not installed; install it with: pip install tensorrt-cu13"
        ) from None
    logger = trt.Logger(trt.Logger.ERROR)
    plan = _build(trt, logger, path, shape)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    outputs = [n for n in names if n not in inputs]
    context.set_input_shape(inputs[0], tuple(shape))

    def compute(images: Tensor) -> list[Tensor]:
        images = images.contiguous()
        results = [
            torch.empty(tuple(context.get_tensor_shape(n)), device=settings.device) for n in outputs
        ]
        for name, tensor in zip([*inputs, *outputs], [images, *results], strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream(settings.device).cuda_stream)
        return results

    return Runner(
        compute,
        runtime="tensorrt",
        precision=settings.precision,
        version=trt.__version__,
        shape=shape,
        device=settings.device,
    )


def _build(trt: Any, logger: Any, path: Path, shape: Sequence[int]) -> Any:
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise VovnetError(f"{path.name}: tensorrt cannot run it: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32
    images = network.get_input(0)
    if -1 in tuple(images.shape):
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, tuple(shape), tuple(shape), tuple(shape))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise VovnetError(f"{path.name}: tensorrt cannot build an engine for it")
    return plan
