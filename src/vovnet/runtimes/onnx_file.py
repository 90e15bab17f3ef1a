"""What an ONNX file, perhaps a stranger's, wants as its input."""

from pathlib import Path

from vovnet.detect.sessions import open_model_file
from vovnet.errors import MissingExtraError, VovnetError


def read_input(path: Path) -> tuple[str, tuple[int | None, ...]]:
    """Name and N×3×H×W shape of the file's one float32 input; None where the file leaves it open.

    Raises `VovnetError` for a file that is not ONNX or wants something else, `MissingExtraError`
    without onnx.
    """
    if path.suffix == ".xml":
        return _read_ir_input(path)
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "export") from None
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except OSError as error:
        raise VovnetError(f"{path}: cannot read: {error.strerror}") from None
    except Exception:  # protobuf has its own kinds
        raise VovnetError(f"{path}: not an ONNX file") from None
    if not graph.node:  # any bytes may decode to an empty model
        raise VovnetError(f"{path}: not an ONNX file")
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise VovnetError(f"{path}: must have one input, not {len(inputs)} ({names})")
    tensor = inputs[0].type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    if kind != "float" or len(shape) != 4 or shape[1] not in (3, None):
        sizes = "×".join("?" if size is None else str(size) for size in shape)
        raise VovnetError(f"{path}: input must be N×3×H×W float, not {sizes} {kind}")
    return inputs[0].name, shape


def _read_ir_input(path: Path) -> tuple[str, tuple[int | None, ...]]:
    """The same of an OpenVINO IR."""
    session = open_model_file(path, 1)
    if len(session.inputs) != 1:
        raise VovnetError(f"{path}: must have one input, not {len(session.inputs)}")
    [(name, shape)] = session.inputs.items()
    kind = session.types[name]
    if kind != "float32" or len(shape) != 4 or shape[1] not in (3, None):
        sizes = "×".join("?" if size is None else str(size) for size in shape)
        raise VovnetError(f"{path}: input must be N×3×H×W float, not {sizes} {kind}")
    return name, tuple(shape)


def fill_shape(
    path: Path, batch: int | None, image_size: tuple[int, int] | None
) -> tuple[int, int, int, int]:
    """The file's input shape with what it leaves open filled in; a batch left open is 1.

    Raises `VovnetError` if the file fixes another batch or size, or leaves the size open and
    none is given.
    """
    _, (n, _, height, width) = read_input(path)
    if batch is not None and n not in (batch, None):
        raise VovnetError(f"{path}: takes batches of {n} only, not {batch}")
    if image_size is None:
        if height is None or width is None:
            raise VovnetError(f"{path}: leaves the image size open; give one")
        image_size = height, width
    elif height not in (image_size[0], None) or width not in (image_size[1], None):
        wanted = "×".join(map(str, image_size))
        raise VovnetError(f"{path}: takes images of {height}×{width} only, not {wanted}")
    return n or batch or 1, 3, *image_size
