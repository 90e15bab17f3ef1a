"""How detectors of other projects write what they find: a table of layouts, each with its decoder.

A decoder takes a file's outputs and gives either every box N×A×4 (xyxy, in pixels of the input) and
scores N×A×C, among which overlaps are still to be suppressed, or finished detections: boxes N×K×4,
scores N×K and labels N×K. A score of 0 stands for no detection.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Outputs = Mapping[str, np.ndarray]  # by name, in the file's order
Background = Literal["none", "first", "last"]
Size = tuple[int, int]  # height, width of the input

_BINS = 8  # of nanodet's distributions: distances 0..7
_QUERIES = 300  # (query, class) pairs that detr keeps


class Parts(NamedTuple):
    """A file's outputs by what they mean, and how many classes they tell (0: they do not)."""

    arrays: dict[str, np.ndarray]
    classes: int


class Decoded(NamedTuple):
    """Boxes and scores, and labels of finished detections.

    The mask of a box is the sum of the `prototypes` N×M×h×w, which cover the input, each times one
    of the box's `coefficients` N×A×M; above 0 it is the object.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None
    coefficients: np.ndarray | None = None
    prototypes: np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """`says` tells the outputs in words; `find` names them, or gives None for other ones; `decode`
    reads them. `background` is where the background stands among the classes as a rule. With
    `one_each` every box is one object of its best class, and suppresses no other. `masks` tells
    whether it draws them."""

    says: str
    find: Callable[[Outputs, Size], Parts | None]
    decode: Callable[[dict[str, np.ndarray], Size], Decoded]
    background: Background = "none"
    one_each: bool = False
    masks: bool = False


def decode_outputs(layout: Layout, parts: Parts, size: Size, background: Background) -> Decoded:
    """What the layout reads in the parts, without the background."""
    floats = {
        k: x if k == "labels" else x.astype(np.float32, copy=False) for k, x in parts.arrays.items()
    }
    with np.errstate(over="ignore", invalid="ignore"):  # a network may give anything
        decoded = layout.decode(floats, size)
    boxes, scores, labels = decoded[:3]
    if labels is None:
        columns = {"none": slice(None), "first": slice(1, None), "last": slice(0, -1)}
        scores = scores[..., columns[background]]
        if layout.one_each:
            return Decoded(boxes, scores.max(-1), scores.argmax(-1))
        return decoded._replace(scores=scores)
    labels = labels.astype(np.int64) - (background == "first")
    return Decoded(boxes, np.where(labels >= 0, scores, 0), labels)


def fitting(outputs: Outputs, size: Size, classes: int | None = None) -> list[str]:
    """The layouts whose outputs look like these, of so many classes if that is known."""
    names = []
    for name, layout in LAYOUTS.items():
        parts = layout.find(outputs, size)
        extra = layout.background != "none"
        if parts and (classes is None or parts.classes in (0, classes + extra)):
            names.append(name)
    return names


def shapes_of(outputs: Outputs) -> str:
    """`output 1×3549×85, ...`"""
    return ", ".join(f"{name} {'×'.join(map(str, x.shape))}" for name, x in outputs.items())


def _rows(outputs: Outputs) -> np.ndarray | None:
    """The one output N×?×?."""
    arrays = list(outputs.values())
    return arrays[0] if len(arrays) == 1 and arrays[0].ndim == 3 else None


def _grid(size: Size, count: int) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Column and row of every cell A×2, its stride A×1, and the largest stride; None unless the
    cells of strides 8 to 32, or to 64, are so many."""
    for strides in ((8, 16, 32), (8, 16, 32, 64)):
        shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in strides]
        if sum(h * w for h, w in shapes) != count:
            continue
        cells = [np.mgrid[:h, :w][::-1].reshape(2, -1).T for h, w in shapes]
        each = np.repeat(strides, [len(part) for part in cells])[:, None]
        return np.concatenate(cells).astype(np.float32), each.astype(np.float32), strides[-1]
    return None


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Centre, width and height to xyxy."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def _find_objectness(outputs: Outputs, size: Size) -> Parts | None:
    rows = _rows(outputs)
    if rows is None or rows.shape[2] < 6:
        return None
    return Parts({"rows": rows}, rows.shape[2] - 5)


def _find_yolox(outputs: Outputs, size: Size) -> Parts | None:
    parts = _find_objectness(outputs, size)
    if parts is None or _grid(size, parts.arrays["rows"].shape[1]) is None:
        return None
    return parts


def _yolov5(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    rows = parts["rows"]
    return Decoded(_corners(rows[..., :4]), rows[..., 4:5] * rows[..., 5:])


def _yolox(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    rows = parts["rows"]
    grid = _grid(size, rows.shape[1])
    assert grid is not None  # as _find_yolox saw
    cells, strides, _ = grid
    centres, sides = (rows[..., :2] + cells) * strides, np.exp(rows[..., 2:4]) * strides
    boxes = _corners(np.concatenate([centres, sides], -1))
    return Decoded(boxes, rows[..., 4:5] * rows[..., 5:])


def _find_yolov8(outputs: Outputs, size: Size) -> Parts | None:
    columns = _rows(outputs)
    if columns is None or columns.shape[1] < 5:
        return None
    return Parts({"columns": columns}, columns.shape[1] - 4)


def _yolov8(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    rows = parts["columns"].swapaxes(1, 2)
    return Decoded(_corners(rows[..., :4]), rows[..., 4:])


def _find_yolov8_seg(outputs: Outputs, size: Size) -> Parts | None:
    """Columns, then prototypes, which have one more dimension."""
    arrays = sorted(outputs.values(), key=lambda array: array.ndim)
    if [array.ndim for array in arrays] != [3, 4]:
        return None
    columns, prototypes = arrays
    classes = columns.shape[1] - 4 - prototypes.shape[1]
    return Parts({"columns": columns, "prototypes": prototypes}, classes) if classes > 0 else None


def _yolov8_seg(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    columns, prototypes = parts["columns"], parts["prototypes"]
    last = columns.shape[1] - prototypes.shape[1]
    boxes, scores, *_ = _yolov8({"columns": columns[:, :last]}, size)
    return Decoded(boxes, scores, None, columns[:, last:].swapaxes(1, 2), prototypes)


def _find_end_to_end(outputs: Outputs, size: Size) -> Parts | None:
    rows = _rows(outputs)
    return Parts({"rows": rows}, 0) if rows is not None and rows.shape[2] == 6 else None


def _end_to_end(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    rows = parts["rows"]
    return Decoded(rows[..., :4], rows[..., 4], rows[..., 5])


def _find_nanodet(outputs: Outputs, size: Size) -> Parts | None:
    rows = _rows(outputs)
    if rows is None or rows.shape[2] <= 4 * _BINS or _grid(size, rows.shape[1]) is None:
        return None
    return Parts({"rows": rows}, rows.shape[2] - 4 * _BINS)


def _nanodet(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    """NanoDet-Plus, which has stride 64, measures from a cell's corner, NanoDet from its centre."""
    rows = parts["rows"]
    grid = _grid(size, rows.shape[1])
    assert grid is not None
    cells, strides, largest = grid
    classes = rows.shape[2] - 4 * _BINS
    bins = rows[..., classes:].reshape(*rows.shape[:2], 4, _BINS)
    top = np.maximum.reduce([bins[..., i] for i in range(_BINS)])
    columns = np.stack([np.arange(_BINS), np.ones(_BINS)], 1).astype(np.float32)
    sums = np.exp(bins - top[..., None]) @ columns  # NumPy is slow at sums of eight
    far = sums[..., 0] / sums[..., 1] * strides
    points = (cells + (0 if largest == 64 else 0.5)) * strides
    boxes = np.concatenate([points - far[..., :2], points + far[..., 2:]], -1)
    return Decoded(boxes, rows[..., :classes])


def _find_pair(outputs: Outputs, size: Size) -> Parts | None:
    """Boxes N×A×4 and scores N×A×C, in either order."""
    items = list(outputs.items())
    if len(items) != 2 or any(x.ndim != 3 for _, x in items):
        return None
    fours = [name for name, x in items if x.shape[2] == 4]
    if not fours or items[0][1].shape[:2] != items[1][1].shape[:2]:
        return None
    own = next((name for name in fours if "box" in name.lower()), fours[0])
    scores = next(x for name, x in items if name != own)
    return Parts({"boxes": outputs[own], "scores": scores}, scores.shape[2])


def _in_pixels(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Fractions of the input, x before y, as pixels."""
    return boxes * np.array([size[1], size[0]] * 2, np.float32)


def _ssd(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    return Decoded(_in_pixels(parts["boxes"], size), parts["scores"])


def _detr(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    """The best pairs of query and class; a query may be several, none suppresses another."""
    boxes, logits = _in_pixels(_corners(parts["boxes"]), size), parts["scores"]
    scores = (1 / (1 + np.exp(-logits))).reshape(len(logits), -1)
    best = np.argsort(-scores, 1, kind="stable")[:, :_QUERIES]
    queries, labels = np.divmod(best, logits.shape[2])
    own = np.take_along_axis(boxes, queries[..., None], 1)
    return Decoded(own, np.take_along_axis(scores, best, 1), labels)


def _detr_softmax(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    logits = parts["scores"]
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    boxes = _in_pixels(_corners(parts["boxes"]), size)
    return Decoded(boxes, odds / odds.sum(-1, keepdims=True))


def _find_finished(outputs: Outputs, rank: int) -> Parts | None:
    """Boxes with 4 numbers, labels (whole numbers, or named so, or the first) and scores."""
    items = list(outputs.items())
    boxes = [name for name, x in items if x.ndim == rank + 1 and x.shape[-1] == 4]
    others = [name for name, x in items if name not in boxes and x.ndim == rank]
    if len(items) != 3 or len(boxes) != 1 or len(others) != 2:
        return None
    whole = [name for name in others if np.issubdtype(outputs[name].dtype, np.integer)]
    named = [name for name in others if "label" in name.lower() or "class" in name.lower()]
    labels = next((found[0] for found in (whole, named) if len(found) == 1), others[0])
    scores = next(name for name in others if name != labels)
    found = {"boxes": boxes[0], "labels": labels, "scores": scores}
    return Parts({part: outputs[name] for part, name in found.items()}, 0)


def _find_detr_postprocessed(outputs: Outputs, size: Size) -> Parts | None:
    return _find_finished(outputs, 2)


def _find_torchvision(outputs: Outputs, size: Size) -> Parts | None:
    return _find_finished(outputs, 1)


def _finished(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    return Decoded(parts["boxes"], parts["scores"], parts["labels"])


def _torchvision(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    return Decoded(parts["boxes"][None], parts["scores"][None], parts["labels"][None])


def _find_tensorflow(outputs: Outputs, size: Size) -> Parts | None:
    """Boxes, then classes before scores unless their names say otherwise, and a count."""
    items = list(outputs.items())
    boxes = [name for name, x in items if x.ndim == 3 and x.shape[2] == 4]
    counts = [name for name, x in items if x.ndim == 1]
    others = [name for name, x in items if x.ndim == 2]
    if len(items) != 4 or (len(boxes), len(counts), len(others)) != (1, 1, 2):
        return None
    if "score" in others[0].lower():
        others.reverse()
    names = {"boxes": boxes[0], "labels": others[0], "scores": others[1], "count": counts[0]}
    return Parts({part: outputs[name] for part, name in names.items()}, 0)


def _tensorflow(parts: dict[str, np.ndarray], size: Size) -> Decoded:
    boxes = _in_pixels(parts["boxes"][..., [1, 0, 3, 2]], size)
    there = np.arange(boxes.shape[1]) < parts["count"][:, None]
    return Decoded(boxes, np.where(there, parts["scores"], 0), parts["labels"])


LAYOUTS = {
    "yolox": Layout(
        "one output N×A×(5+C): centre and size on grids of strides 8, 16, 32, objectness, classes",
        _find_yolox,
        _yolox,
    ),
    "yolox_decoded": Layout(
        "one output N×A×(5+C): centre and size in pixels, objectness, classes",
        _find_objectness,
        _yolov5,
    ),
    "yolov5": Layout(
        "one output N×A×(5+C): centre and size in pixels, objectness, classes",
        _find_objectness,
        _yolov5,
    ),
    "yolov8": Layout(
        "one output N×(4+C)×A: centre and size in pixels, classes", _find_yolov8, _yolov8
    ),
    "yolov8_seg": Layout(
        "columns N×(4+C+M)×A: centre and size in pixels, classes, M coefficients of masks; and "
        "prototypes N×M×h×w",
        _find_yolov8_seg,
        _yolov8_seg,
        masks=True,
    ),
    "end_to_end": Layout(
        "one output N×K×6: xyxy in pixels, score, label", _find_end_to_end, _end_to_end
    ),
    "detr": Layout(
        "logits N×Q×C and boxes N×Q×4: centre and size in 0..1; each class has its own sigmoid",
        _find_pair,
        _detr,
    ),
    "detr_softmax": Layout(
        "logits N×Q×C, the background last unless told, and boxes N×Q×4: centre and size in 0..1; "
        "a softmax over the classes",
        _find_pair,
        _detr_softmax,
        "last",
        one_each=True,
    ),
    "detr_postprocessed": Layout(
        "labels N×K, boxes N×K×4 (xyxy in pixels of the size that it is told), scores N×K",
        _find_detr_postprocessed,
        _finished,
    ),
    "nanodet": Layout(
        "one output N×A×(C+32): classes, then 8 bins for each side's distance; strides 8 to 32 "
        "or 64",
        _find_nanodet,
        _nanodet,
    ),
    "ssd": Layout(
        "boxes N×A×4 (xyxy in 0..1) and scores N×A×C, the background first unless told",
        _find_pair,
        _ssd,
        "first",
    ),
    "torchvision": Layout(
        "of one picture: boxes K×4 (xyxy in pixels), labels K, scores K; label 0 is background",
        _find_torchvision,
        _torchvision,
        "first",
    ),
    "tensorflow": Layout(
        "boxes N×K×4 (yxyx in 0..1), classes N×K from 1 on, scores N×K, count N",
        _find_tensorflow,
        _tensorflow,
        "first",
    ),
}


def nearest(outputs: Outputs) -> list[str]:
    """Layouts with as many outputs of the same ranks, to name to someone whose file fits none."""
    ranks = tuple(sorted(x.ndim for x in outputs.values()))
    shapes: dict[tuple[int, ...], list[str]] = {
        (3,): ["yolox", "yolov5", "yolov8", "end_to_end", "nanodet"],
        (3, 4): ["yolov8_seg"],
        (3, 3): ["detr", "detr_softmax", "ssd"],
        (2, 2, 3): ["detr_postprocessed"],
        (1, 1, 2): ["torchvision"],
        (1, 2, 2, 3): ["tensorflow"],
    }
    return shapes.get(ranks, [])
