"""ONNX files of others: what is taken, what is refused, and in which words."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from vovnet.errors import VovnetError
from vovnet.runtimes import open_onnx
from vovnet.runtimes.onnx_file import fill_shape

FLOAT = TensorProto.FLOAT


def write(path: Path, *shapes, operator: str = "Relu", kind: int = FLOAT) -> Path:
    """One operator from the first of the inputs to the output."""
    info = helper.make_tensor_value_info
    inputs = [info(f"in{i}", kind, shape) for i, shape in enumerate(shapes)]
    output = info("out", kind, shapes[0])
    node = helper.make_node(operator, ["in0"], ["out"])
    graph = helper.make_graph([node], "graph", inputs, [output])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_with_open_dimensions(tmp_path, runtime):
    path = write(tmp_path / "relu.onnx", ("n", 3, "h", "w"))
    with open_onnx(path, runtime, batch=2, image_size=(5, 7)) as run:
        assert run.shape == (2, 3, 5, 7)
        images = torch.randn(2, 3, 5, 7)
        assert torch.equal(run(images)[0], images.relu())


def test_what_the_file_fixes_need_not_be_said(tmp_path):
    path = write(tmp_path / "relu.onnx", (4, 3, 5, 7))
    assert fill_shape(path, None, None) == (4, 3, 5, 7)
    assert fill_shape(path, 4, (5, 7)) == (4, 3, 5, 7)
    path = write(tmp_path / "open.onnx", ("n", 3, 5, "w"))
    assert fill_shape(path, None, (5, 9)) == (1, 3, 5, 9)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([(4, 3, 5, 7)], {"batch": 2}, "takes batches of 4 only, not 2"),
        ([(1, 3, 5, 7)], {"image_size": (5, 8)}, "takes images of 5×7 only, not 5×8"),
        ([(1, 3, "h", "w")], {}, "leaves the image size open; give one"),
        ([(1, 3, 5, 7), (1, 2)], {}, "must have one input, not 2 (in0, in1)"),
        ([(1, 3, 5)], {}, "input must be N×3×H×W float, not 1×3×5 float"),
        ([("n", 1, 5, 7)], {}, "input must be N×3×H×W float, not ?×1×5×7 float"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, shapes, options, message):
    path = write(tmp_path / "model.onnx", *shapes)
    with pytest.raises(VovnetError) as error:
        open_onnx(path, **options)
    assert str(error.value) == f"{path}: {message}"


def test_bytes_are_not_images_to_us(tmp_path):
    path = write(tmp_path / "model.onnx", (1, 3, 5, 7), kind=TensorProto.UINT8)
    with pytest.raises(VovnetError, match="must be N×3×H×W float, not 1×3×5×7 uint8"):
        open_onnx(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_a_file_that_is_not_onnx(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(VovnetError, match=r"model\.onnx: not an ONNX file"):
        open_onnx(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(VovnetError, match=r"none\.onnx: cannot read: No such file"):
        open_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_unknown_operator_is_named(tmp_path, runtime):
    path = write(tmp_path / "model.onnx", (1, 3, 5, 7), operator="Frobnicate")
    with pytest.raises(VovnetError) as error:
        open_onnx(path, runtime)
    assert "Frobnicate" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_runtime_without_onnx_says_which_have_it(tmp_path):
    path = write(tmp_path / "model.onnx", (1, 3, 5, 7))
    with pytest.raises(VovnetError, match="these do: onnxruntime, openvino, tensorrt"):
        open_onnx(path, "ncnn")
