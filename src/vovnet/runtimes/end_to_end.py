"""A detector as one ONNX file, from the pixels of an image to its detections.

Four parts one after the other: the pixels are normalised; the network; its outputs become boxes
and scores; overlaps are suppressed. Every part is a model of its own, and they are joined, so that
the network's can be quantized alone.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vovnet.detect.options import CONF, IOU, MAX_DET
from vovnet.detect.sidecar import FORMAT
from vovnet.detect.suppress import COMPETING
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.models.detector import Detector
from vovnet.runtimes.convert import converting, write_onnx

OPSET, IR_VERSION = 20, 10
_LARGE = 256  # numbers; of smaller tensors half the space is nothing
METADATA = "vovnet"  # the entry that holds our JSON

# Integer division and its rest give the box and the class of a place among A·C scores. Where a
# tensor has N×K pairs they stand in the order of their scores, and stay there.
_SUPPRESSION = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
suppress (float[N,A,4] all_boxes, float[N,A,C] all_scores, float conf, float iou, int64 max_det)
  => (float[N,M,4] boxes, float[N,M] scores, int64[N,M] labels, int64[N] count)
<float conf = {{{CONF}}}, float iou = {{{IOU}}}, int64 max_det = {{{MAX_DET}}},
 int64[1] competing = {{{COMPETING}}}, int64[2] rows = {{0, -1}}, int64[1] last = {{-1}},
 int64[1] first = {{0}}, int64[1] one = {{1}}, int64[1] second = {{1}}, int64[1] third = {{2}},
 int64[1] end = {{3}}, int64[3] four = {{1, 1, 4}}, int64[2] image_and_pair = {{0, 2}},
 float zero = {{0.0}}>
{{
  flat = Reshape(all_scores, rows)
  shape = Shape(flat)
  total = Slice(shape, second, third)
  pairs = Min(total, competing)
  pair_scores, place = TopK<axis=1, largest=1, sorted=1>(flat, pairs)
  scores_shape = Shape(all_scores)
  classes = Slice(scores_shape, third, end)
  row = Div(place, classes)
  label = Mod(place, classes)
  row_column = Unsqueeze(row, last)
  row_of_four = Tile(row_column, four)
  pair_boxes = GatherElements<axis=1>(all_boxes, row_of_four)
  on_off = Constant<value = float[2] {{0.0, 1.0}}>()
  own = OneHot<axis=1>(label, classes, on_off)
  pair_rows = Unsqueeze(pair_scores, one)
  by_class = Mul(own, pair_rows)
  chosen = NonMaxSuppression(pair_boxes, by_class, competing, iou, conf)
  where = Gather<axis=1>(chosen, image_and_pair)
  pair_shape = Shape(pair_scores)
  none = ConstantOfShape<value = float[1] {{0.0}}>(pair_shape)
  chosen_shape = Shape(chosen)
  chosen_count = Slice(chosen_shape, first, one)
  ones = ConstantOfShape<value = float[1] {{1.0}}>(chosen_count)
  stays = ScatterND(none, where, ones)
  alive = Mul(pair_scores, stays)
  asked = Reshape(max_det, one)
  most = Min(pairs, asked)
  scores, order = TopK<axis=1, largest=1, sorted=1>(alive, most)
  labels = GatherElements<axis=1>(label, order)
  order_column = Unsqueeze(order, last)
  order_of_four = Tile(order_column, four)
  boxes = GatherElements<axis=1>(pair_boxes, order_of_four)
  is_one = Greater(scores, zero)
  as_number = Cast<to=7>(is_one)
  count = ReduceSum<keepdims=0>(as_number, one)
}}"""


_DENSE = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
dense (float[N,A,4] all_boxes, float[N,A,C] all_scores) => (float[N,A,4] boxes, float[N,A,C] scores)
{{
  boxes = Identity(all_boxes)
  scores = Identity(all_scores)
}}"""


class Dense(nn.Module):
    """A network's flat outputs to all boxes N×A×4, xyxy in input pixels, and scores N×A×C."""

    def __init__(self, detector: Detector, outputs: Any) -> None:
        super().__init__()
        self.dense = detector.decoder.dense  # pyrefly: ignore
        self.kind = type(outputs)
        self.size = detector.input_spec.size

    def forward(self, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        """In the order of the network's named tuple."""
        return self.dense(self.kind(*outputs), self.size)


def write_end_to_end(
    detector: Detector,
    path: Path,
    *,
    batch: int | None = 1,
    raw: bool = False,
    compact: bool = False,
) -> None:
    """Write a detector as an ONNX file that needs nothing else; see `join` for what it is.

    `batch` None leaves it open. `compact` stores weights that are half floats, as shipped ones are,
    in half the space, to be unpacked when the file is opened; batch norms then stay as they are,
    for folded weights are no half floats. Raises `VovnetError` for a detector of two stages and
    for an operator that ONNX does not have.
    """
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        network = Path(folder) / "network.onnx"
        write_network(detector, network, batch, fold=not compact)
        if compact:
            _halve(network)
        join(detector, network, path, batch=batch, raw=raw)


def write_network(
    detector: Detector, path: Path, batch: int | None = 1, *, fold: bool = True
) -> None:
    """The network alone, as `write_onnx` does it, with the opset that the other parts have."""
    example = torch.zeros(batch or 2, 3, *detector.input_spec.size)
    write_onnx(detector.network, example, path, dynamic_batch=batch is None, opset=OPSET, fold=fold)


def join(
    detector: Detector,
    network: Path,
    path: Path,
    *,
    batch: int | None = 1,
    raw: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Join a network's ONNX file with what comes before and after it.

    The file takes "images" N×H×W×3 uint8 (RGB) and, with defaults, "conf", "iou" and "max_det"; it
    gives "boxes" N×M×4 (xyxy in input pixels), "scores" N×M and "labels" N×M, best first, of which
    the first "count" (N) are detections. With `raw` it gives all "boxes" N×A×4 and "scores" N×A×C.
    Its metadata hold what `file_facts` tells, and `facts`.
    """
    onnx = _import_onnx()
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder, converting("ONNX"):
        decode = Path(folder) / "decode.onnx"
        outputs = _write_decode(detector, decode, batch)
        parts = [onnx.parser.parse_model(_preparation(detector))]
        parts += [onnx.load_model(network), onnx.load_model(decode)]
        parts += [onnx.parser.parse_model(_DENSE if raw else _SUPPRESSION)]
        model = _chain(onnx, parts, outputs)
        told = json.dumps(file_facts(detector, raw=raw, batch=batch) | dict(facts or {}))
        onnx.helper.set_model_props(model, {METADATA: told})
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())


def join_preparation(
    detector: Detector, middle: Path, path: Path, facts: Mapping[str, Any]
) -> None:
    """Join the preparation with a file that goes from a normalised image to its detections.

    `middle` takes "images" 1×3×H×W, and has outputs of one image, which get an axis of images in
    front; other inputs, thresholds, get `detect`'s defaults.
    """
    onnx = _import_onnx()
    with converting("ONNX"):
        model = onnx.load_model(middle)
        graph, spec = model.graph, detector.input_spec
        there = {value.name for value in graph.output}
        ends = [name for name in _ENDS if name in there]
        _rename(graph, {"images": "normalized"} | {name: f"{name}_of_one" for name in ends})
        before = onnx.parser.parse_model(_preparation(detector)).graph
        added = {name: "Reshape" if name == "count" else "Unsqueeze" for name in ends}
        text = "".join(f"{name} = {how} ({name}_of_one, {how}_by)\n" for name, how in added.items())
        nodes = [
            *before.node,
            *graph.node,
            *onnx.parser.parse_graph(f"g () => () {{ {text} }}").node,
        ]
        thresholds = {n: np.array([v], np.float32) for n, v in (("conf", CONF), ("iou", IOU))}
        weights = [onnx.numpy_helper.from_array(v, name) for name, v in thresholds.items()]
        axes = {"Unsqueeze_by": np.array([0]), "Reshape_by": np.array([1])}
        weights += [onnx.numpy_helper.from_array(v, name) for name, v in axes.items()]
        images = onnx.helper.make_tensor_value_info(
            "images", onnx.TensorProto.UINT8, [1, *spec.size, 3]
        )
        others = [value for value in graph.input if value.name != "images"]
        whole = onnx.helper.make_graph(
            nodes,
            "two_stage",
            [images, *others],
            [onnx.helper.make_tensor_value_info(n, *_ENDS[n]) for n in ends],
            [*before.initializer, *graph.initializer, *weights],
        )
        joined = onnx.helper.make_model(whole, opset_imports=model.opset_import)
        joined.ir_version, joined.producer_name = IR_VERSION, "vovnet"
        told = json.dumps(file_facts(detector, raw=False, batch=1) | dict(facts))
        onnx.helper.set_model_props(joined, {METADATA: told})
        onnx.checker.check_model(joined)
        path.write_bytes(joined.SerializeToString())


# ONNX's type (1 is float32, 7 int64) and shape of what a two-stage file gives.
_ENDS: dict[str, tuple[int, list[Any]]] = {
    "boxes": (1, [1, "K", 4]),
    "scores": (1, [1, "K"]),
    "labels": (7, [1, "K"]),
    "count": (7, [1]),
    "masks": (1, [1, "K", None, None]),
    "mask_scores": (1, [1, "K"]),
}


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Other names for values, wherever nodes read or write them."""
    for node in graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                ends[i] = names.get(name, name)


def file_facts(detector: Detector, *, raw: bool, batch: int | None) -> dict[str, Any]:
    """What a file says about itself: enough to prepare its images and to read its outputs."""
    return {
        "format": FORMAT,
        "model": detector.name,
        "names": list(detector.names),
        "input": detector.input_spec.to_dict(),
        "precision": "fp32",
        "outputs": "dense" if raw else "detections",
        "batch": batch,
        "masks": detector.masks,
        "licence": detector.metadata.get("licence"),
    }


def _preparation(detector: Detector) -> str:
    """Pixels to what the network takes, as ONNX text."""
    spec = detector.input_spec
    mean, std = (", ".join(str(float(v)) for v in values) for values in (spec.mean, spec.std))
    height, width = spec.size
    return f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
prepare (uint8[N,{height},{width},3] images) => (float[N,3,{height},{width}] normalized)
<float[3] mean = {{{mean}}}, float[3] std = {{{std}}}>
{{
  pixels = Cast<to=1>(images)
  centred = Sub(pixels, mean)
  scaled = Div(centred, std)
  normalized = Transpose<perm=[0, 3, 1, 2]>(scaled)
}}"""


@torch.no_grad()
def _write_decode(detector: Detector, path: Path, batch: int | None) -> int:
    """Write what makes boxes and scores of the network's outputs; returns how many these are."""
    if detector.decoder is None:
        raise VovnetError(f"{detector.name}: has a second stage, which this file cannot hold")
    network = detector.network.cpu()
    outputs = network(torch.zeros(batch or 2, 3, *detector.input_spec.size))
    free = {0: torch.export.Dim("batch", min=1, max=1024)}
    dense = Dense(detector, outputs).eval()
    dense(*outputs)  # what it keeps for later is made now, and not of the exporter's own tensors
    torch.onnx.export(
        dense,
        tuple(outputs),
        path,
        input_names=[f"output{i}" for i in range(len(outputs))],
        output_names=["boxes", "scores"],
        dynamic_shapes=((free,) * len(outputs),) if batch is None else None,
        external_data=False,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
    )
    return len(outputs)


def _chain(onnx: Any, parts: Sequence[Any], outputs: int) -> Any:
    """The parts as one model: preparation, network, decoding, and what comes last."""
    whole = parts[0]
    between = [f"output{i}" for i in range(outputs)]
    maps = (
        ("network/", [("normalized", "network/images")]),
        ("decode/", [(f"network/{name}", f"decode/{name}") for name in between]),
        ("", [("decode/boxes", "all_boxes"), ("decode/scores", "all_scores")]),
    )
    for part, (prefix, io_map) in zip(parts[1:], maps, strict=True):
        part.ir_version = IR_VERSION
        whole = onnx.compose.merge_models(
            whole, onnx.compose.add_prefix(part, prefix) if prefix else part, io_map
        )
    whole.producer_name = "vovnet"
    return whole


def _halve(path: Path) -> None:
    """Store the weights of a file that are half floats as such, with a cast for each."""
    onnx = _import_onnx()
    model = onnx.load_model(path)
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        halves = values.astype(np.float16) if values.dtype == np.float32 else values
        if values.size < _LARGE or values.dtype != np.float32 or (halves != values).any():
            continue
        name, half = tensor.name, f"{tensor.name}/half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(halves, half))
        casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.compose
        import onnx.parser
    except ImportError:
        raise MissingExtraError("onnx", "export") from None
    return onnx
