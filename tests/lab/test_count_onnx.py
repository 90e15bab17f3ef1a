"""An ONNX file costs on paper what its network does, counted in torch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vovnet.errors import VovnetError
from vovnet.lab import count
from vovnet.lab.count_onnx import count_onnx
from vovnet.lab.table import count_models
from vovnet.runtimes import write_onnx
from vovnet.shipped import shipped_onnx

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
SAME = ("params", "macs", "flops", "memory_access", "activations")


class Parts(nn.Module):
    """Convolutions of every kind, and a product; without an operator that ONNX writes as two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.back = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Linear(4 * 16 * 24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = self.grouped(torch.cat([x, self.depthwise(x)], 1)).sigmoid()
        return self.last(self.back(x).flatten(1))


def as_onnx(parts: Parts, path: Path, batch: object = "n") -> Path:
    """Written by hand: node for node what torch runs."""
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["a"], "a",
                         kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise.weight"], ["c"], "c", group=8, pads=[1] * 4),
        helper.make_node("Concat", ["b", "c"], ["d"], axis=1),
        helper.make_node("Conv", ["d", "grouped.weight", "grouped.bias"], ["e"], "e", group=2),
        helper.make_node("Sigmoid", ["e"], ["f"]),
        helper.make_node("ConvTranspose", ["f", "back.weight", "back.bias"], ["g"], "g",
                         strides=[2, 2]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "last.weight", "last.bias"], ["y"], transB=1),
    ]  # fmt: skip
    stored = [numpy_helper.from_array(v.numpy(), k) for k, v in parts.state_dict().items()]
    return save(path, nodes, [batch, 3, 16, 24], stored)


def save(path: Path, nodes: list, shape: list, stored: list = (), kind: int = 1) -> Path:
    value = helper.make_tensor_value_info
    outputs = [value(nodes[-1].output[0], 1, None)]
    graph = helper.make_graph(nodes, "g", [value("x", kind, shape)], outputs, list(stored))
    opset = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [2, 4])
def test_it_is_our_counter_to_the_byte(tmp_path, batch, size):
    parts = Parts()
    expected = count(parts, (16, 24), batch=batch, bytes_per_element=size)
    path = as_onnx(parts, tmp_path / "parts.onnx")
    found = count_onnx(path, batch=batch, bytes_per_element=size)
    for key in (*SAME, "bytes_moved"):
        assert getattr(found, key) == getattr(expected, key), key
    assert sum(found.by_operator.values()) == expected.bytes_moved
    assert found.uncounted_ops == ("Relu", "Sigmoid")
    for mine, theirs in zip(found.layers, expected.layers, strict=True):
        rest = ("kind", "macs", "memory_access", "lower_bound", "ratio")
        assert [getattr(mine, k) for k in rest] == [getattr(theirs, k) for k in rest]


def test_what_ships_counts_like_its_model(run):
    """An end-to-end file: pixels in, suppression inside, batch norms not folded."""
    path = shipped_onnx("vovdet_nano.voc")
    [mine] = count_models([str(path)])
    [theirs] = count_models(["vovdet_nano"], mine["imgsz"], num_classes=20)
    assert {key: mine[key] for key in (*SAME, "fused")} == {k: theirs[k] for k in (*SAME, "fused")}
    assert mine["bytes_moved"] is None  # how many boxes there are, pictures decide
    row = json.loads(run("count", path, "--json").out)[0]
    assert row == mine
    assert run("count", path, "vovdet_nano").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vovnet27_slim", "vovdet_small"])
def test_our_exports_count_like_their_networks(tmp_path, randomise_norms, name):
    from vovnet.models import create_model
    from vovnet.models.layers import fuse_norms

    model = create_model(name).eval()
    network = getattr(model, "network", model)
    randomise_norms(network)
    for parameter in network.parameters():  # of biases alike the exporter writes one, of zeros none
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0, 0.01)
    write_onnx(network, torch.zeros(1, 3, 64, 64), tmp_path / "network.onnx")
    fuse_norms(network)
    expected = count(network, (64, 64))
    found = count_onnx(tmp_path / "network.onnx")
    assert {k: getattr(found, k) for k in SAME} == {k: getattr(expected, k) for k in SAME}
    assert found.folded


def test_stored_otherwise_is_the_same(tmp_path):
    """int8 weights behind DequantizeLinear, and a batch norm whose statistics nobody learned."""
    weight = numpy_helper.from_array(np.ones((8, 3, 1, 1), np.int8), "w")
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    four = [numpy_helper.from_array(np.ones(8, np.float32), f"n{i}") for i in range(4)]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["whole"]),
        helper.make_node("Conv", ["x", "whole"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "n0", "n1", "n2", "n3"], ["y"]),
    ]
    path = save(tmp_path / "int8.onnx", nodes, [1, 3, 4, 4], [weight, scale, *four])
    found = count_onnx(path)
    assert (found.params, found.macs, found.folded) == (24 + 16, 16 * 24, False)


@pytest.mark.parametrize(
    ("node", "shape", "told"),
    [
        (helper.make_node("Attn", ["x"], ["y"], domain="own"), [1, 3, 4, 4], "what Attn computes"),
        (helper.make_node("Einsum", ["x"], ["y"], equation="abcd->ab"), [1, 3, 4, 4], "Einsum"),
        (helper.make_node("Relu", ["x"], ["y"]), [1, 3, "h", 4], "open; give --imgsz"),
        (helper.make_node("Relu", ["x"], ["y"]), [1, 10], "it must take pictures, once"),
        (helper.make_node("MatMul", ["x", "z"], ["y"]), [1, 3, 4, 4], "no known shape"),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), [1, 3, 4, 5], "y has no known shape"),
    ],
)
def test_what_no_shape_tells_is_refused(refused, tmp_path, node, shape, told):
    path = save(tmp_path / "odd.onnx", [node], shape)
    line = refused("count", path)
    assert f"{path}: " in line
    assert told in line


def test_what_is_no_file_or_made_otherwise(refused, tmp_path):
    path = as_onnx(Parts(), tmp_path / "parts.onnx", 1)
    assert "takes 16 only, not --imgsz 32" in refused("count", path, "--imgsz", 32)
    assert "takes 1 only, not --batch 2" in refused("count", path, "--batch", 2)
    assert "leave out --num-classes and --stem" in refused("count", path, "--num-classes", 2)
    assert "is counted by its ONNX file" in refused("count", tmp_path / "x.xml")
    assert "cannot read: No such file" in refused("count", tmp_path / "none.onnx")
    for data in (b"", b"none", path.read_bytes()[:200]):
        (tmp_path / "bad.onnx").write_bytes(data)
        assert "bad.onnx" in refused("count", tmp_path / "bad.onnx")


def test_a_size_that_would_fill_the_memory_is_only_a_number(tmp_path):
    shape = numpy_helper.from_array(np.array([10**6, 10**6]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    path = save(tmp_path / "big.onnx", nodes, [1, 3, 4, 4], [shape])
    assert count_onnx(path).macs == 0
    with pytest.raises(VovnetError):
        count_onnx(tmp_path)
