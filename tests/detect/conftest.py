"""Small ONNX files that give what they are told to, whatever they see."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

KINDS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16}


def _write_foreign(
    path: Path,
    outputs: dict[str, np.ndarray],
    description: dict | None = None,
    *,
    shape: Sequence[int | str] = (1, 3, 64, 96),
    kind: str = "float32",
    told: bool = False,
) -> Path:
    """A file with these outputs and, beside it, its description. `told` adds an input for sizes,
    by which boxes are multiplied, as in detectors that scale their own."""
    inputs = [helper.make_tensor_value_info("images", KINDS[kind], shape)]
    nodes = []
    if told:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, (1, 2)))
        nodes += [
            helper.make_node("Cast", ["orig_target_sizes"], ["whole"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["whole", "whole"], ["sides"], axis=1),
        ]
    stored, infos = [], []
    for name, values in outputs.items():
        stored.append(numpy_helper.from_array(values, f"{name}/values"))
        times = told and values.shape[-1] == 4
        inputs_of = [f"{name}/values", "sides"] if times else [f"{name}/values"]
        nodes.append(helper.make_node("Mul" if times else "Identity", inputs_of, [name]))
        type_ = helper.np_dtype_to_tensor_dtype(values.dtype)
        infos.append(helper.make_tensor_value_info(name, type_, values.shape))
    graph = helper.make_graph(nodes, "graph", inputs, infos, stored)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    if description is not None:
        path.with_suffix(".json").write_text(json.dumps(description))
    return path


@pytest.fixture(scope="session")
def write_foreign() -> Callable[..., Path]:
    return _write_foreign
