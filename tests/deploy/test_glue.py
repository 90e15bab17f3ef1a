"""The glue between layers, alone in ONNX Runtime, against what torch does in its place."""

import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torchvision.ops import batched_nms

from vovnet.boxes.nms import best_pairs, suppress
from vovnet.deploy import glue
from vovnet.detect.options import Options
from vovnet.models.centermask import adaptive_levels
from vovnet.models.fpn import canonical_levels, pool_regions
from vovnet.models.rcnn import Proposing


def run(text: str, given: dict[str, Tensor], wanted: list[str]) -> list[Tensor]:
    """What the text makes of the given values."""
    kinds = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}
    nodes = glue.nodes_of(text)
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "glue",
        [helper.make_tensor_value_info(n, kinds[x.dtype], None) for n, x in given.items()],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [numpy_helper.from_array(v, n) for n, v in glue.CONSTANTS.items() if n in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(wanted, {name: value.numpy() for name, value in given.items()})
    return [torch.from_numpy(value) for value in found]


def random_boxes(count: int, seed: int, side: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side * 0.8
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 6.5)
    return torch.cat([corner, (corner + 1 + sides)], 1)


def at_the_bars(sides: tuple[float, ...]) -> Tensor:
    """Squares at which a level begins."""
    return torch.tensor([[3.0, 5.0, 3 + side, 5 + side] for side in sides])


@pytest.mark.parametrize("cells", [7, 14])
@pytest.mark.parametrize("kind", ["canonical", "adaptive"])
def test_regions_are_cut_from_the_level_that_torch_takes(kind, cells):
    strides = (4, 8, 16, 32) if kind == "canonical" else (8, 16, 32)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 3, 512 // s, 512 // s, generator=generator) for s in strides]
    boxes = torch.cat([random_boxes(60, 1, 512), at_the_bars((112, 224, 448, 256, 363, 0))])
    if kind == "canonical":
        levels, said = canonical_levels(boxes, 4), glue.canonical("drawn")
    else:
        levels, said = adaptive_levels(boxes, (512, 512)), glue.adaptive("drawn", (512, 512))
    assert levels.unique().tolist() == list(range(len(strides)))
    given = {"drawn": boxes} | {f"map{i}": one for i, one in enumerate(maps)}
    text = said + glue.pool("drawn", "cells", strides, cells)
    found_levels, cut = run(text, given, ["drawn_level", "cells"])
    assert found_levels.tolist() == levels.tolist()
    torch.testing.assert_close(cut, pool_regions(maps, strides, [boxes], [levels], cells))


def candidates(level: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(level)
    return random_boxes(count, level, 100), torch.rand(count, generator=generator)


@pytest.mark.parametrize("rule", [Proposing(90, 40, 0.5, 0.3), Proposing(90, 1000, 0.7, 0.01)])
def test_regions_are_those_that_suppression_leaves(rule):
    levels = [candidates(0, 90), candidates(1, 50)]
    given = {f"candidates{i}": boxes for i, (boxes, _) in enumerate(levels)}
    given |= {f"chances{i}": scores for i, (_, scores) in enumerate(levels)}
    levels[0][1][3] = rule.min_objectness  # no more than the bar is enough
    levels[1][1][7] = -1  # a box without area
    boxes, scores = (torch.cat(column) for column in zip(*levels, strict=True))
    level = torch.tensor([0] * 90 + [1] * 50)
    likely = scores >= torch.tensor(rule.min_objectness)
    boxes, scores, level = boxes[likely], scores[likely], level[likely]
    wanted = boxes[batched_nms(boxes, scores, level, rule.iou)[: rule.most]]
    found, count = run(glue.propose(2, rule), given, ["regions", "proposed"])
    assert 30 < int(count) == len(wanted)
    assert torch.equal(found, wanted)


def test_without_regions_there_is_one_to_fill_up():
    given = {"candidates0": candidates(0, 5)[0], "chances0": torch.full((5,), 0.2)}
    rule = Proposing(5, 5, 0.5, 0.3)
    found, count = run(glue.propose(1, rule), given, ["regions", "proposed"])
    assert count.tolist() == [0]
    assert torch.equal(found, torch.zeros(1, 4))
    given = {"s": torch.ones(1, 2), "b": torch.ones(1, 2, 4), "n": torch.tensor([0])}
    scores, boxes = run(glue.pairs("s", "b", "n", 10), given, ["pair_scores", "pair_boxes"])
    assert scores.shape == (0,)
    assert boxes.shape == (0, 4)


@pytest.mark.parametrize(("conf", "iou", "most"), [(0.3, 0.5, 20), (0.0, 0.9, 400), (1.0, 0.5, 9)])
def test_detections_are_those_of_torch(conf, iou, most):
    """Three classes, boxes of their own for each, two rows that are filling."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(52, 3, generator=generator)
    boxes = random_boxes(52 * 3, 4, 100).view(52, 3, 4)
    given = {"s": scores, "b": boxes, "n": torch.tensor([50])}
    given |= {"conf": torch.tensor([conf]), "iou": torch.tensor([iou])}
    text = glue.pairs("s", "b", "n", 120) + glue.suppress(3, most)
    found = run(text, given, ["boxes", "scores", "labels", "count"])
    pairs = best_pairs(torch.arange(50), scores[:50], conf, 120)
    wanted = suppress(boxes[pairs.rows, pairs.labels], pairs, Options(iou=iou), most)
    assert int(found[3]) == len(wanted[0])
    for mine, other in zip(found[:3], wanted, strict=True):
        assert torch.equal(mine, other)
    assert conf == 1 or len(wanted[2].unique()) == 3


def test_a_part_with_functions_is_refused():
    function = helper.make_function("here", "f", ["x"], ["x"], [], [helper.make_opsetid("", 18)])
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(graph, functions=[function])
    with pytest.raises(ValueError, match="left functions in a part"):
        glue.join([("part", model)], [""], (8, 8))
