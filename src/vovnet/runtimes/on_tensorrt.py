"""TensorRT on NVIDIA GPUs, built from an ONNX file by its Python API; see `detect/engine.py`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vovnet.detect.engine import import_tensorrt, open_engine
from vovnet.errors import VovnetError
from vovnet.runtimes.convert import converting
from vovnet.runtimes.runner import Runner, Settings


def open_file(path: Path, shape: Sequence[int], settings: Settings) -> Runner:
    """An ONNX file as an engine for images of the given shape, built in minutes.

    Raises `VovnetError` for an operator that TensorRT does not have.
    """
    plan = build_engine(path, shape, settings.precision)
    compute = open_engine(plan, path.name, settings.device)
    return Runner(
        compute,
        runtime="tensorrt",
        precision=settings.precision,
        version=import_tensorrt().__version__,
        shape=shape,
        device=settings.device,
    )


def build_engine(path: Path, shape: Sequence[int], precision: str = "fp32") -> bytes:
    """A float32 ONNX file with one input as an engine for this GPU and inputs of this shape.

    TensorRT computes in the formats that a file says: for fp16 it gets one `in_half` precision.
    """
    trt = import_tensorrt()
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        file = in_half(path, Path(folder) / path.name) if precision == "fp16" else path
        return _build(trt, file, shape)


def in_half(path: Path, out: Path) -> Path:
    """Write a float32 ONNX file in half precision to `out`; inputs, outputs and whatever turns
    outputs into boxes ("decode/") stay float32, for half floats cannot tell pixels above 1,024
    apart."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with converting("half precision"):
        model = onnx.load_model(path)
        exact = [node.name for node in model.graph.node if node.name.startswith("decode/")]
        half = convert_float_to_float16(model, keep_io_types=True, node_block_list=exact)
        onnx.save_model(half, out)
    return out


def _build(trt: Any, path: Path, shape: Sequence[int]) -> bytes:
    logger = trt.Logger(trt.Logger.ERROR)
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
    return bytes(plan)
