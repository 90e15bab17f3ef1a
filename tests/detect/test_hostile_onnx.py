"""ONNX files that are damaged or mean harm: refused in one line, and nothing is read elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
make_node = helper.make_node

GOOD = {"input": {"height": 64, "width": 96}, "layout": "yolov5", "names": ["ant", "bee"]}
FLOAT, INT8 = TensorProto.FLOAT, TensorProto.INT8
HUGE = [1, 10**7, 10**6]


def save(path: Path, nodes: list, stored: list = (), kind: int = FLOAT) -> Path:
    value = helper.make_tensor_value_info
    outputs = [value(nodes[-1].output[0], FLOAT, None)]
    graph = helper.make_graph(
        nodes, "g", [value("images", kind, (1, 3, 64, 96))], outputs, list(stored)
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    path.write_bytes(model.SerializeToString())
    path.with_suffix(".json").write_text(json.dumps(GOOD))
    return path


def elsewhere(location: str, dims: tuple[int, ...] = (1, 1, 7)) -> onnx.TensorProto:
    """A tensor whose numbers lie in another file."""
    tensor = TensorProto(name="w", data_type=FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


COPY = [make_node("Identity", ["w"], ["out"])]
CIRCLE = [
    make_node("Add", ["b", "images"], ["a"]),
    make_node("Add", ["a", "images"], ["b"]),
    make_node("Identity", ["b"], ["out"]),
]
FILL = [make_node("ConstantOfShape", ["shape"], ["out"])]
POOLED = [make_node("GlobalAveragePool", ["images"], ["p"]), make_node("Flatten", ["p"], ["out"])]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("nodes", "stored", "kind", "told"),
    [
        (CIRCLE, [], FLOAT, "not acyclic"),
        (FILL, [numpy_helper.from_array(np.array(HUGE), "shape")], FLOAT, ""),
        ([make_node("Cast", ["images"], ["out"], to=1)], [], INT8, "of float or uint8"),
        (POOLED, [], FLOAT, "(out 1×3) are not those of layout yolov5"),
        (COPY, [elsewhere("../secret.bin")], FLOAT, "External data path"),
        (COPY, [elsewhere("/etc/hostname")], FLOAT, "xternal data"),
        (COPY, [elsewhere("link.bin")], FLOAT, "External data path"),
        (COPY, [elsewhere("none.bin", (2**40, 2**40))], FLOAT, "xternal data"),
    ],
    ids=["circle", "huge", "int8", "classifier", "above", "absolute", "link", "vast"],
)
def test_it_is_refused_in_one_line(tmp_path, refused, nodes, stored, kind, told, runtime):
    pytest.importorskip(runtime)
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(7, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = save(folder / "hostile.onnx", nodes, stored, kind)
    line = refused("predict", "skimage:coffee", "--weights", path, "--runtime", runtime)
    assert "hostile.onnx: " in line
    assert told in line


def test_more_memory_than_there_is(tmp_path, refused):
    stored = [numpy_helper.from_array(np.array(HUGE), "shape")]
    path = save(tmp_path / "huge.onnx", FILL, stored)
    line = refused("predict", "skimage:coffee", "--weights", path)
    assert "asks for more memory than there is, for one picture of 64×96; export it anew" in line


def test_counting_does_not_run_in_circles(tmp_path, run):
    around = [
        make_node("Identity", ["b"], ["a"]),
        make_node("Identity", ["a"], ["b"]),
        make_node("Conv", ["images", "b"], ["out"]),
    ]
    outcome = run("count", save(tmp_path / "circle.onnx", around))
    assert outcome.code == 2
    assert "no known shape" in outcome.err
