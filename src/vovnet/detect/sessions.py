"""A model file opened in its runtime: arrays in, arrays out, and torch is not needed for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from vovnet.errors import MissingExtraError, VovnetError

# The outputs of an end-to-end file that stand before its suppression.
DENSE = ("decode/boxes", "decode/scores")
# OpenVINO's capability and element type for each of our words.
_HINTS = {"fp32": ("FP32", "f32"), "bf16": ("BF16", "bf16"), "fp16": ("FP16", "f16")}


@dataclass(frozen=True)
class Session:
    """`run` takes arrays by the names of the inputs, and returns those of the outputs in order.

    It may be called by several threads at once. `inputs` gives the shape of each input, as the file
    has it: numbers, and anything else for what it leaves open; `types` the kind of its numbers, as
    NumPy names it; `outputs` the names of the outputs. Only ONNX Runtime and OpenVINO tell those.
    """

    run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
    inputs: dict[str, list[Any]]
    version: str
    metadata: Mapping[str, str]
    types: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def open_onnxruntime(path: Path, threads: int, providers: list[Any] | None = None) -> Session:
    """An ONNX file in ONNX Runtime, on the CPU unless other `providers` are named.

    The threads do not spin while they wait, for others may have work for the processor. Raises
    `VovnetError` for an operator that onnxruntime does not have.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise MissingExtraError("onnxruntime") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what fails is raised, and told in one line
    try:
        session = ort.InferenceSession(path, options, providers=providers or _CPU)
    except Exception as error:  # its kinds are private
        lines = str(error).strip().splitlines() or ["no reason given"]
        reason = lines[0].rpartition("failed:")[2].rpartition(" FAIL : ")[2].strip()
        raise VovnetError(f"{path.name}: onnxruntime cannot run it: {reason}") from error
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]

    def run(feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(output) for output in session.run(None, dict(feeds))]

    metadata = session.get_modelmeta().custom_metadata_map
    types = {i.name: _type_name(i.type) for i in inputs}
    outputs = tuple(output.name for output in session.get_outputs())
    shapes = {i.name: list(i.shape) for i in inputs}
    return Session(run, shapes, ort.__version__, metadata, types, outputs)


def _type_name(kind: str) -> str:
    """NumPy's name for ONNX Runtime's `tensor(float)` and its like."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


_CPU = ["CPUExecutionProvider"]


def open_model_file(path: Path, threads: int) -> Session:
    """An ONNX file in ONNX Runtime, the .xml of an IR in OpenVINO, both in float32."""
    if path.suffix != ".xml":
        return open_onnxruntime(path, threads)
    _check_ir(path)
    return open_openvino(path, "fp32", threads)


def _check_ir(path: Path) -> None:
    """Raise `VovnetError` for an .xml that is no IR, or lies there without its weights: OpenVINO
    tries every other format on it, and says so in many lines."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise VovnetError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if b"<net" not in head:
        raise VovnetError(f"{path}: is no OpenVINO IR; give the .xml of one, or an .onnx file")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise VovnetError(f"{path}: {weights.name} is missing beside it; copy both files")


def open_openvino(path: Path, precision: str, threads: int) -> Session:
    """An ONNX or IR file in OpenVINO on the CPU; of an end-to-end file all before its suppression.

    Raises `VovnetError` for a format that this processor does not compute in.
    """
    core = openvino_core()
    config = openvino_config(core, precision, threads)
    try:
        model = core.read_model(path)
        compiled = core.compile_model(_before_suppression(model), "CPU", config)
    except RuntimeError as error:
        raise VovnetError(f"{path.name}: openvino cannot run it: {last_line(error)}") from error
    return openvino_session(compiled)


def openvino_session(compiled: Any) -> Session:
    """The session of a compiled model; a request for every caller that is there at a time."""
    free: SimpleQueue[Any] = SimpleQueue()
    ports = list(compiled.outputs)

    def run(feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            request = free.get_nowait()
        except Empty:
            request = compiled.create_infer_request()
        results = request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        # The request owns the memory of its results and writes there again.
        found = [results[port].copy() for port in ports]
        free.put(request)
        return found

    shapes = {port.get_any_name(): _sides(port.partial_shape) for port in compiled.inputs}
    version = _import_openvino().__version__.partition("-")[0]
    types = {p.get_any_name(): p.element_type.to_dtype().name for p in compiled.inputs}
    outputs = tuple(port.get_any_name() if port.names else "" for port in ports)
    return Session(run, shapes, version, {}, types, outputs)


def _sides(shape: Any) -> list[Any]:
    """A shape's numbers, None for what is left open; nothing where even the rank is."""
    if shape.rank.is_dynamic:
        return []
    return [d.get_length() if d.is_static else None for d in shape]


def _before_suppression(model: Any) -> Any:
    """The model up to `DENSE` if it has these, else itself."""
    ports = {name: port for op in model.get_ops() for port in op.outputs() for name in port.names}
    if not all(name in ports for name in DENSE):
        return model
    images = [p for p in model.get_parameters() if "images" in p.output(0).names]
    return _import_openvino().Model([ports[name] for name in DENSE], images)


def openvino_core() -> Any:
    """OpenVINO's core; raises `MissingExtraError` without the package."""
    _import_openvino()
    return _core()


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino") from None
    return openvino


@cache
def _core() -> Any:
    """The process's only core.

    A core's CPU plugin has signals handled on a stack of its own until it is unloaded, and then
    puts back what it found. Of two that do not end in the reverse order, one puts back what the
    other has freed, and the next signal crashes the process. This one is never unloaded.
    """
    return _import_openvino().Core()


def openvino_config(core: Any, precision: str, threads: int) -> dict[str, Any]:
    """How to compile: the precision is always said, for on its own OpenVINO takes bf16 wherever
    the processor has it. What int8 leaves in floating point takes the fastest format there is."""
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
    }
    if precision == "int8":
        return config
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    capability, hint = _HINTS[precision]
    if capability not in able:
        can = ", ".join(name for name, (word, _) in _HINTS.items() if word in able)
        raise VovnetError(f"this processor does not compute in {precision}; it has {can}")
    return {**config, "INFERENCE_PRECISION_HINT": hint}


def last_line(error: Exception) -> str:
    """OpenVINO's errors begin with the places in its source and end with what was wrong."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    return next(filter(None, reversed(lines)), "no reason given")


def open_ncnn(parameters: Path, weights: Path, outputs: int, precision: str, threads: int) -> Any:
    """A network of ncnn's files: a function of one image 3×H×W that gives its `outputs` arrays.

    bf16 means bf16 weights and activations, summed in float32.
    """
    ncnn = import_ncnn()
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_bf16_storage = precision == "bf16"
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)  # on by default, and coarser than said
    if net.load_param(str(parameters)) or net.load_model(str(weights)):
        raise VovnetError(f"{parameters.name}: ncnn cannot load it")

    def run(image: np.ndarray) -> list[np.ndarray]:
        extractor = net.create_extractor()
        pixels = np.ascontiguousarray(image)  # kept: ncnn reads it where it is, and later
        extractor.input("in0", ncnn.Mat(pixels))
        return [_extract(extractor, i) for i in range(outputs)]

    return run


def open_litert(file: Path, threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A LiteRT file: a function of one batch N×3×H×W that gives its outputs, one call at a time."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # pyrefly: ignore[missing-import]
    except ImportError:
        raise MissingExtraError("ai-edge-litert") from None
    try:
        interpreter = Interpreter(model_path=str(file), num_threads=threads)
        signature = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise VovnetError(f"{file.name}: litert cannot run it: {error}") from error
    (name,), lock = signature.get_input_details(), Lock()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with lock:
            outputs = signature(**{name: images})
        return [outputs[key] for key in sorted(outputs)]

    return run


def import_ncnn() -> Any:
    """The package; raises `MissingExtraError` without it."""
    try:
        import ncnn
    except ImportError:
        raise MissingExtraError("ncnn") from None
    return ncnn


def _extract(extractor: Any, index: int) -> np.ndarray:
    status, mat = extractor.extract(f"out{index}")
    if status:
        raise VovnetError(f"ncnn failed on output {index} with status {status}")
    return np.array(mat)
