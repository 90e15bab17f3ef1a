"""What one pass of an ONNX file costs on paper, by the rules of `vovnet.lab.count`.

Shapes come from onnx's own inference; nothing is computed. What they do not tell is refused, or
None.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from pathlib import Path
from typing import Any

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.lab.count import LayerCount

# Operators whose outputs are their inputs seen otherwise, or no data at all.
_VIEWS = {
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
    *("Shape", "Size", "Expand", "Constant", "ConstantOfShape", "Dropout"),
}
_MOVES = {
    *(
        "Concat",
        "Cast",
        "CastLike",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Tile",
        "OneHot",
    ),
    *("DepthToSpace", "SpaceToDepth", "ScatterND", "ScatterElements", "Range", "Where", "Resize"),
}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Run as often as their inputs say, or multiply in ways that are not counted here.
_UNKNOWN = {
    *("Loop", "Scan", "If", "SequenceMap", "LSTM", "GRU", "RNN", "Einsum", "Attention"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DeformConv"),
}
# Which inputs of an operator are learned; what a batch norm has measured is not.
_LEARNED = {
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), (1, 2)),
    "MatMul": (0, 1),
}
_CARRIERS = {"Identity", "Cast", "CastLike", "DequantizeLinear", "Transpose", "Reshape"}
# What is computed where its inputs are few stored numbers; none of these makes many of them.
_FOLDED = {
    *("Constant", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Cast"),
    *("Gather", "Slice", "Add", "Sub", "Mul", "Div"),
}
_FEW = 64


@dataclass(frozen=True)
class FileCounts:
    """As `vovnet.lab.Counts`; `bytes_moved` and its shares `by_operator` are None where a shape is
    left to the picture, as behind a suppression. `side` is that of the input, `folded` tells that
    there are no batch norms."""

    params: int
    macs: int
    memory_access: int
    activations: int
    bytes_moved: int | None
    by_operator: dict[str, int] | None
    uncounted_ops: tuple[str, ...]
    layers: tuple[LayerCount, ...]
    side: int
    folded: bool

    @property
    def flops(self) -> int:
        """Two for every multiply–accumulate."""
        return 2 * self.macs


def count_onnx(
    path: Path, imgsz: int | None = None, *, batch: int = 1, bytes_per_element: int = 4
) -> FileCounts:
    """Count a file's pass of `batch` images; `imgsz` is for one that leaves the size open.

    Raises `VovnetError` for a file that cannot be read, takes no pictures of that size, or whose
    multiplications its shapes do not tell.
    """
    graph = _Graph(path, imgsz, batch)
    unknown = sorted({n.op_type for n in graph.nodes if n.op_type in _UNKNOWN or n.domain})
    if unknown:
        raise VovnetError(
            f"{path}: cannot be counted: what {', '.join(unknown)} computes no shape tells; "
            "export it with plain operators"
        )
    products = [node for node in graph.nodes if node.op_type in _PRODUCTS]
    layers = [_layer(graph, node) for node in products]
    convolutions = [
        one for one, node in zip(layers, products, strict=True) if "Conv" in node.op_type
    ]
    moved = _moved(graph, bytes_per_element)
    kinds = {node.op_type for node in graph.nodes}
    return FileCounts(
        params=graph.learned,
        macs=sum(layer.macs for layer in layers),
        memory_access=sum(layer.memory_access for layer in convolutions),
        activations=sum(prod(graph.shape(node.output[0])) for node in products),
        bytes_moved=None if moved is None else sum(moved.values()),
        by_operator=None if moved is None else dict(moved.most_common()),
        uncounted_ops=tuple(sorted(kinds - _PRODUCTS - _VIEWS - _MOVES)),
        layers=tuple(convolutions),
        side=graph.side,
        folded="BatchNormalization" not in kinds,
    )


class _Graph:
    """A file's nodes, with the shape and the type of every tensor that can be told."""

    def __init__(self, path: Path, imgsz: int | None, batch: int) -> None:
        self.path = path
        model = _load(path)
        self.side = _fill_input(model, path, imgsz, batch)
        try:
            from onnx import inliner, shape_inference

            model = inliner.inline_local_functions(model)
            self.weights = {one.name for one in model.graph.initializer}
            self.weights |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
            _fold(model.graph)
            model = shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:  # its kinds are private
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise VovnetError(f"{path}: its shapes do not fit together ({reason})") from None
        graph = model.graph
        self.nodes = list(graph.node)
        self.stored = {one.name: (tuple(one.dims), one.data_type) for one in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                value = node.attribute[0].t
                self.stored[node.output[0]] = (tuple(value.dims), value.data_type)
        self.told: dict[str, tuple[tuple[int | None, ...] | None, int]] = dict(self.stored)
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.told.setdefault(value.name, _told(value.type.tensor_type))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; raises `VovnetError` if it is not known."""
        shape, _ = self.told.get(name, (None, 0))
        if shape is None or None in shape:
            raise VovnetError(f"{self.path}: cannot be counted: {name} has no known shape")
        return tuple(side for side in shape if side is not None)

    @cached_property
    def _makers(self) -> dict[str, Any]:
        return {name: node for node in self.nodes for name in node.output}

    def origin(self, name: str) -> str:
        """The stored tensor that a tensor is, seen otherwise; itself if it is computed."""
        seen = name
        for _ in self.nodes:  # a damaged file may lead in a circle
            maker = self._makers.get(seen)
            if maker is None or maker.op_type not in _CARRIERS:
                break
            seen = maker.input[0]
        return seen if seen in self.stored else name

    @cached_property
    def learned(self) -> int:
        """Elements of all learned tensors, shared ones once."""
        names = {
            self.origin(node.input[i])
            for node in self.nodes
            for i in _LEARNED.get(node.op_type, ())
            if i < len(node.input)
        }
        names |= set(self._sums())
        return sum(prod(self.stored[name][0]) for name in names & self.weights)

    def _sums(self) -> Iterator[str]:
        """The biases that are added to products."""
        for node in self.nodes:
            if node.op_type == "Add":
                makers = [self._makers.get(name) for name in node.input]
                for name, other in zip(node.input, reversed(makers), strict=True):
                    if other is not None and other.op_type in ("MatMul", "Conv"):
                        yield self.origin(name)


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "export") from None
    try:
        model = onnx.load_model(path, load_external_data=False)
    except OSError as error:
        raise VovnetError(f"{path}: cannot read: {error.strerror}") from None
    except Exception:  # protobuf has its own kinds
        model = None
    if model is None or not model.graph.node:  # any bytes may decode to an empty model
        raise VovnetError(f"{path}: not an ONNX file")
    return model


def _fold(graph: Any) -> None:
    """Compute what follows from few stored numbers, such as axes and sizes: shapes hang on it."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    known = {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if prod(one.dims) <= _FEW and not one.external_data
    }
    for node in list(graph.node):
        names = [name for name in node.input if name]
        if node.op_type not in _FOLDED or node.domain or not all(name in known for name in names):
            continue
        values: Any = ReferenceEvaluator(node).run(None, {name: known[name] for name in names})
        if all(value.size <= _FEW for value in values):
            known |= zip(node.output, values, strict=True)
            made = zip(values, node.output, strict=True)
            graph.initializer.extend(numpy_helper.from_array(v, name) for v, name in made)
            graph.node.remove(node)


def _told(tensor: Any) -> tuple[tuple[int | None, ...] | None, int]:
    """Shape and type of a tensor, None for what is open in it."""
    if not tensor.HasField("shape"):
        return None, tensor.elem_type
    sides = tensor.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in sides), tensor.elem_type


def _fill_input(model: Any, path: Path, imgsz: int | None, batch: int) -> int:
    """Write batch and size into what the input leaves open; returns its height."""
    stored = {one.name for one in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in stored]
    pictures = [v for v in values if len(v.type.tensor_type.shape.dim) in (3, 4)]
    if len(pictures) != 1:
        raise VovnetError(f"{path}: cannot be counted: it must take pictures, once")
    sides = pictures[0].type.tensor_type.shape.dim
    whole, planes = len(sides) == 4, sides[-1].dim_value != 3 or sides[-3].dim_value == 3
    wanted: list[int | None] = [3, imgsz, imgsz] if planes else [imgsz, imgsz, 3]
    for side, value in zip(sides, [batch] * whole + wanted, strict=True):
        if not side.HasField("dim_value"):
            if value is None:
                raise VovnetError(f"{path}: leaves the size of its input open; give --imgsz")
            side.dim_value = value
        elif value not in (None, side.dim_value):
            what = "--batch" if side is sides[0] and whole else "--imgsz"
            raise VovnetError(f"{path}: takes {side.dim_value} only, not {what} {value}")
    return sides[-2].dim_value if planes else sides[-3].dim_value


def _layer(graph: _Graph, node: Any) -> LayerCount:
    """The row of a convolution or a matrix product."""
    first, weight, out = (graph.shape(name) for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Gemm":
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        macs = prod(out) * first[0 if turned else 1]
    elif node.op_type == "MatMul":
        macs = prod(out) * first[-1]
    else:
        return _convolution(node, first, weight, out)
    return LayerCount(node.name or node.output[0], "product", macs, 0, 0.0, 0.0)


def _convolution(
    node: Any, first: Sequence[int], weight: Sequence[int], out: Sequence[int]
) -> LayerCount:
    transposed = node.op_type == "ConvTranspose"
    applied = first if transposed else out  # a filter costs once for each position it is laid on
    positions = prod(applied) // applied[1]
    macs = positions * prod(weight)
    bound = 2 * sqrt(positions * macs / prod(weight[2:])) + macs / positions
    access = prod(first) + prod(weight) + prod(out)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    kind = "transposed conv" if transposed else "conv"
    if groups > 1:
        kind = f"{'depthwise' if weight[1] == 1 else 'grouped'} {kind}"
    kind = f"{kind} {'×'.join(map(str, weight[2:]))}"
    name = node.name or node.output[0]
    return LayerCount(name, kind, macs, access, bound, access / bound)


def _moved(graph: _Graph, bytes_per_element: int) -> Counter[str] | None:
    """Bytes that every kind of operator reads and writes; None if a shape is not known."""
    moved: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op_type in _VIEWS or _is_stored(graph, node.output):
            continue
        for name in filter(None, (*node.input, *node.output)):
            try:
                numbers = prod(graph.shape(name))
            except VovnetError:
                return None
            moved[node.op_type] += numbers * _size(graph.told[name][1], bytes_per_element)
    return moved


def _is_stored(graph: _Graph, names: Iterable[str]) -> bool:
    """Whether an operator only brings stored numbers into form, which a runtime does once."""
    return all(graph.origin(name) in graph.stored for name in names)


def _size(kind: int, bytes_per_element: int) -> int:
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(kind)
    return bytes_per_element if dtype.kind == "f" else dtype.itemsize
