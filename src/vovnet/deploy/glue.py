"""What lies between the layers of a two-stage network, as ONNX: suppression and pooling of regions.

Every function returns nodes in ONNX's text form. They read and write these values:

- `map0`…: the maps that regions are cut from; `candidates0` A×4 and `chances0` A…: boxes and
  scores of every level; `regions` R×4, of which the first `proposed` are no filling;
- `pair_boxes` K×4, `pair_scores`, `pair_labels`: (box, class) pairs that compete;
- `boxes`, `scores`, `labels`, `count`: what remains; `drawn`, `drawn_labels`: the same, filled up.

Layers want at least one region (group norm reshapes by -1), so an empty list is filled up with a
box of zeros, whose results are cut off again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from vovnet.models.rcnn import Proposing

_IR_VERSION = 10
# Numbers that the text uses: their names stand for themselves.
CONSTANTS = {
    "axis0": np.array([0]),
    "axis1": np.array([1]),
    "axes01": np.array([0, 1]),
    "column2": np.array([2]),
    "one": np.array([1]),
    "none": np.array([0]),
    "nowhere": np.array(-1.0, np.float32),
    "nothing": np.array(0.0, np.float32),
    "flat": np.array([-1]),
    "flat4": np.array([-1, 4]),
}


def propose(levels: int, rule: "Proposing") -> str:
    """`regions` from the candidates of all levels: the best after suppression level by level."""
    # NonMaxSuppression wants more than the threshold, `min_objectness` itself is enough.
    bar = np.nextafter(np.float32(rule.min_objectness), np.float32(-1))
    text = f"""
        rule_iou = Constant <value_float = {rule.iou}> ()
        rule_bar = Constant <value_float = {float(bar):.12g}> ()
        rule_each = Constant <value_ints = [{rule.candidates}]> ()
        rule_most = Constant <value_ints = [{rule.most}]> ()
    """
    for i in range(levels):
        text += f"""
        p{i}_boxes = Unsqueeze (candidates{i}, axis0)
        p{i}_scores = Unsqueeze (chances{i}, axes01)
        p{i}_found = NonMaxSuppression (p{i}_boxes, p{i}_scores, rule_each, rule_iou, rule_bar)
        p{i}_column = Gather <axis = 1> (p{i}_found, column2)
        p{i}_rows = Squeeze (p{i}_column, axis1)
        p{i}_kept = Gather (candidates{i}, p{i}_rows)
        p{i}_chances = Gather (chances{i}, p{i}_rows)
        """
    boxes, chances = (
        ", ".join(f"p{i}_{kind}" for i in range(levels)) for kind in ("kept", "chances")
    )
    return f"""{text}
        every_box = Concat <axis = 0> ({boxes})
        every_chance = Concat <axis = 0> ({chances})
        every_count = Shape (every_chance)
        proposed = Min (every_count, rule_most)
        best_chance, best_row = TopK (every_chance, proposed)
        best_box = Gather (every_box, best_row)
        {_fill("best_box", "proposed", "regions", "missing")}
    """


def _fill(value: str, count: str, filled: str, missing: str, columns: bool = True) -> str:
    """`filled`: the value's rows, and one of zeros where `count` is 0."""
    pads = f"none, none, {missing}, none" if columns else f"none, {missing}"
    return f"""
        {missing}_less = Sub (one, {count})
        {missing} = Max ({missing}_less, none)
        {missing}_pads = Concat <axis = 0> ({pads})
        {filled} = Pad ({value}, {missing}_pads)
    """


def pairs(scores: str, boxes: str, count: str, most: int) -> str:
    """The pairs that compete, the `most` likeliest: from scores R×C and boxes R×C×4, of which only
    the first `count` rows are meant."""
    return f"""
        meant_scores = Slice ({scores}, none, {count}, axis0)
        meant_boxes = Slice ({boxes}, none, {count}, axis0)
        flat_scores = Reshape (meant_scores, flat)
        flat_boxes = Reshape (meant_boxes, flat4)
        pair_all = Shape (flat_scores)
        pair_most = Constant <value_ints = [{most}]> ()
        pair_count = Min (pair_all, pair_most)
        pair_scores, pair_place = TopK (flat_scores, pair_count)
        pair_classes = Shape <start = 1, end = 2> ({scores})
        pair_labels = Mod (pair_place, pair_classes)
        pair_boxes = Gather (flat_boxes, pair_place)
    """


def suppress(classes: int, most: int) -> str:
    """The detections: pairs above `conf` after suppression class by class at `iou`."""
    numbers = ", ".join(map(str, range(classes)))
    return f"""
        class_numbers = Constant <value_ints = [{numbers}]> ()
        class_column = Unsqueeze (class_numbers, axis1)
        in_class = Equal (pair_labels, class_column)
        class_scores = Where (in_class, pair_scores, nowhere)
        nms_scores = Unsqueeze (class_scores, axis0)
        nms_boxes = Unsqueeze (pair_boxes, axis0)
        found_most = Constant <value_ints = [{most}]> ()
        found = NonMaxSuppression (nms_boxes, nms_scores, found_most, iou, conf)
        found_column = Gather <axis = 1> (found, column2)
        found_rows = Squeeze (found_column, axis1)
        found_scores = Gather (pair_scores, found_rows)
        found_count = Shape (found_scores)
        kept_count = Min (found_count, found_most)
        scores, kept_place = TopK (found_scores, kept_count)
        kept_rows = Gather (found_rows, kept_place)
        boxes = Gather (pair_boxes, kept_rows)
        labels = Gather (pair_labels, kept_rows)
        count = Squeeze (kept_count, axis0)
    """


def drawn(levels: str, strides: Sequence[int], cells: int) -> str:
    """What the mask head takes: the detections, filled up, and their features."""
    return f"""
        {_fill("boxes", "kept_count", "drawn", "undrawn")}
        {_fill("labels", "kept_count", "drawn_labels", "unlabelled", columns=False)}
        {_fill("scores", "kept_count", "drawn_scores", "unscored", columns=False)}
        {levels}
        {pool("drawn", "drawn_cells", strides, cells)}
    """


def outputs(*names: str) -> str:
    """`names` without their filling."""
    return "".join(f"{n} = Slice (drawn_{n}, none, kept_count, axis0)\n" for n in names)


def canonical(boxes: str) -> str:
    """`canonical_levels` of four: level by level, what √area / 224 must reach."""
    return f"""
        {_area(boxes)}
        {boxes}_side = Sqrt ({boxes}_area)
        {boxes}_base = Constant <value_float = 224.0> ()
        {boxes}_little = Constant <value_float = 0.000001> ()
        {boxes}_share = Div ({boxes}_side, {boxes}_base)
        {boxes}_reach = Add ({boxes}_share, {boxes}_little)
        {boxes}_bars = Constant <value_floats = [0.5, 1.0, 2.0]> ()
        {_levels(boxes, "GreaterOrEqual")}
    """


def adaptive(boxes: str, image_size: tuple[int, int]) -> str:
    """`adaptive_levels` of three: level by level, what share of the image must be exceeded."""
    return f"""
        {_area(boxes)}
        {boxes}_image = Constant <value_float = {float(image_size[0] * image_size[1])}> ()
        {boxes}_reach = Div ({boxes}_area, {boxes}_image)
        {boxes}_bars = Constant <value_floats = [0.25, 0.5]> ()
        {_levels(boxes, "Greater")}
    """


def _area(boxes: str) -> str:
    return f"""
        {boxes}_corners = Constant <value_ints = [2, 2]> ()
        {boxes}_low, {boxes}_high = Split <axis = 1> ({boxes}, {boxes}_corners)
        {boxes}_signed = Sub ({boxes}_high, {boxes}_low)
        {boxes}_sides = Max ({boxes}_signed, nothing)
        {boxes}_area = ReduceProd <keepdims = 0> ({boxes}_sides, axis1)
    """


def _levels(boxes: str, comparison: str) -> str:
    return f"""
        {boxes}_reach1 = Unsqueeze ({boxes}_reach, axis1)
        {boxes}_above = {comparison} ({boxes}_reach1, {boxes}_bars)
        {boxes}_steps = Cast <to = 7> ({boxes}_above)
        {boxes}_level = ReduceSum <keepdims = 0> ({boxes}_steps, axis1)
    """


def pool(boxes: str, features: str, strides: Sequence[int], cells: int) -> str:
    """`pool_regions`: the features of every box from the map of its level."""
    text = ""
    for i, stride in enumerate(strides):
        text += f"""
        {boxes}_number{i} = Constant <value_int = {i}> ()
        {boxes}_is{i} = Equal ({boxes}_level, {boxes}_number{i})
        {boxes}_where{i} = NonZero ({boxes}_is{i})
        {boxes}_here{i} = Squeeze ({boxes}_where{i}, axis0)
        {boxes}_rois{i} = Gather ({boxes}, {boxes}_here{i})
        {boxes}_image{i} = Sub ({boxes}_here{i}, {boxes}_here{i})
        {boxes}_cut{i} = RoiAlign <coordinate_transformation_mode = "half_pixel", mode = "avg",
            output_height = {cells}, output_width = {cells}, sampling_ratio = 2,
            spatial_scale = {1 / stride}> (map{i}, {boxes}_rois{i}, {boxes}_image{i})
        """
    heres, cuts = (
        ", ".join(f"{boxes}_{kind}{i}" for i in range(len(strides))) for kind in ("here", "cut")
    )
    return f"""{text}
        {boxes}_order = Concat <axis = 0> ({heres})
        {boxes}_cuts = Concat <axis = 0> ({cuts})
        {boxes}_many = Shape ({boxes}_order)
        {boxes}_sorted, {boxes}_back = TopK <largest = 0> ({boxes}_order, {boxes}_many)
        {features} = Gather ({boxes}_cuts, {boxes}_back)
    """


def join(
    parts: Sequence[tuple[str, "onnx.ModelProto"]], text: Sequence[str], size: tuple[int, int]
) -> "onnx.ModelProto":
    """One model of the named parts, with the text that follows each."""
    import onnx
    from onnx import numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []
    for (name, model), lines in zip(parts, text, strict=True):
        graph = _prefixed(name, model)
        nodes += [*graph.node, *nodes_of(lines)]
        weights += graph.initializer
    used = {name for node in nodes for name in node.input}
    weights += [numpy_helper.from_array(CONSTANTS[n], n) for n in CONSTANTS if n in used]
    graph = onnx.helper.make_graph(nodes, "two_stage", _inputs(size), _outputs(nodes), weights)
    opset = max(o.version for _, m in parts for o in m.opset_import if o.domain in ("", "ai.onnx"))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    return model


def _prefixed(name: str, model: "onnx.ModelProto") -> "onnx.GraphProto":
    """The part's graph: its ends keep their names, what lies between gets the part's."""
    from onnx import compose

    if model.functions:
        raise ValueError("the exporter left functions in a part")
    return compose.add_prefix(model, f"{name}_", rename_inputs=False, rename_outputs=False).graph


def nodes_of(text: str) -> list["onnx.NodeProto"]:
    """The nodes that a text stands for."""
    from onnx import parser

    return list(parser.parse_graph(f"glue () => () {{ {text} }}").node)


def _inputs(size: tuple[int, int]) -> list["onnx.ValueInfoProto"]:
    from onnx import TensorProto, helper

    return [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size]),
        helper.make_tensor_value_info("conf", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
    ]


def _outputs(nodes: Sequence["onnx.NodeProto"]) -> list["onnx.ValueInfoProto"]:
    from onnx import TensorProto, helper

    made = {name for node in nodes for name in node.output}
    kinds = {
        "boxes": (TensorProto.FLOAT, ["K", 4]),
        "scores": (TensorProto.FLOAT, ["K"]),
        "labels": (TensorProto.INT64, ["K"]),
        "masks": (TensorProto.FLOAT, ["K", 28, 28]),
        "mask_scores": (TensorProto.FLOAT, ["K"]),
        "count": (TensorProto.INT64, []),
    }
    return [helper.make_tensor_value_info(n, *kinds[n]) for n in kinds if n in made]
