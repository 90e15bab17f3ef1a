"""A description proposed for another project's file: `vovnet describe`.

What the file says (input, metadata, operators) is taken. The rest is tried: photographs run through
the file with every usual preparation, each answer is read in every layout that its shapes allow,
and the reading with the surest sensible boxes wins.
"""

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vovnet.detect.description import Description
from vovnet.detect.foreign import ForeignDetector, Wants, feeds, output_names, wants_of
from vovnet.detect.layouts import (
    LAYOUTS,
    Decoded,
    Outputs,
    Size,
    decode_outputs,
    fitting,
    nearest,
    shapes_of,
)
from vovnet.detect.sessions import Session, open_model_file
from vovnet.detect.usual_names import usual_names
from vovnet.errors import WeightsError
from vovnet.input_spec import InputSpec

_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
_SURE, _CROWD = 0.25, 100  # more sure boxes in a photograph are nonsense
_NEAR = 0.9  # of the best rating: too near to tell
_TENSORFLOW = ("tensorflow", "torchvision")  # classes of COCO by their ids


class Preparation(NamedTuple):
    """What is done to pixels: their order, then (pixel · scale − mean) / std."""

    channels: str
    scale: float = 1
    mean: tuple[float, ...] = (0, 0, 0)
    std: tuple[float, ...] = (1, 1, 1)

    def spec(self, size: Size) -> InputSpec:
        """As an input, letterboxed to the top left."""
        values = {"height": size[0], "width": size[1], "place": "top left"} | self._asdict()
        values |= {"mean": list(self.mean), "std": list(self.std)}
        plain = {"input": values, "layout": "yolox", "names": ["any"]}
        return Description.from_dict(plain, "a preparation").input


_UNIT = 1 / 255
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PREPARATIONS = (
    Preparation("rgb", _UNIT),
    Preparation("bgr"),
    Preparation("rgb"),
    Preparation("bgr", _UNIT),
    Preparation("rgb", _UNIT, *_IMAGENET),
)


class Reading(NamedTuple):
    """One preparation and layout, the classes that the outputs tell (0: none), and how sure its
    sensible boxes are, 0..1."""

    layout: str
    preparation: Preparation
    classes: int
    rating: float


@dataclass(frozen=True)
class Proposal:
    """`description` as JSON has it; `unknown` what the file could not tell, to be checked; `tried`
    the best readings; `found` what the description finds in photographs."""

    description: dict[str, Any]
    unknown: list[str]
    tried: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def propose(path: Path, imgsz: int | None = None, threads: int = 1) -> Proposal:
    """Look at a file and propose its description.

    `imgsz` is the side for a file that leaves its input's size open. Raises `WeightsError` for a
    file that describes itself, takes no picture, or gives nothing that a layout reads.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path")
    session = open_model_file(path, threads)
    if "vovnet" in session.metadata:
        raise WeightsError(f"{path}: vovnet export wrote it, it needs no description; just use it")
    wants, said = wants_of(session, path), _metadata(session.metadata)
    size = _size(wants, said.get("imgsz"), imgsz, path)
    photographs = _photographs()
    readings = _readings(path, session, wants, said, size, photographs)
    best = readings[0]
    names, unknown = _names(best, said, path)
    description = {
        "input": _input(best, size, wants, said),
        "layout": best.layout,
        "names": names,
        "licence": said.get("license"),
    }
    unknown += _unknown(readings, said, bool(photographs))
    told = Description.from_dict(description, "the proposal")
    runtime = "openvino" if path.suffix == ".xml" else "onnxruntime"
    found, doubts = _sanity(ForeignDetector(path, told, session, runtime, "fp32"), photographs)
    operators, remarks = _operators(path)
    tried = [
        {
            "layout": one.layout,
            "channels": one.preparation.channels,
            "scale": one.preparation.scale,
            "mean": list(one.preparation.mean),
            "rating": round(one.rating, 3),
        }
        for one in readings[:5]
    ]
    return Proposal(description, [*unknown, *doubts, *remarks], tried, found, operators)


def _metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Names, imgsz, stride and licence as ultralytics writes them; what is damaged is left out."""
    said: dict[str, Any] = {}
    if isinstance(licence := metadata.get("license"), str):
        said["license"] = licence
    for key in ("names", "imgsz", "stride"):
        try:
            said[key] = ast.literal_eval(metadata[key][: 2**20])
        except (KeyError, ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    names = said.get("names")
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list) and names and all(isinstance(n, str) and n.strip() for n in names):
        said["names"] = names
    else:
        said.pop("names", None)
    return said


def _size(wants: Wants, said: Any, imgsz: int | None, path: Path) -> Size:
    pair = [said] * 2 if isinstance(said, int) else said
    if not (isinstance(pair, list | tuple) and len(pair) == 2):
        pair = [None, None]
    sides = []
    for there, trained in zip(wants.size, pair, strict=True):
        if imgsz is not None and there not in (None, imgsz):
            raise WeightsError(f"{path}: takes {there} pixels only, not --imgsz {imgsz}")
        side = there or imgsz or trained
        if not isinstance(side, int):
            raise WeightsError(f"{path}: leaves the size of its input open; give --imgsz")
        sides.append(side)
    return sides[0], sides[1]


def _photographs() -> dict[str, Image.Image]:
    """Those inside scikit-image, if it is installed."""
    try:
        from skimage import data
    except ImportError:
        return {}
    return {name: Image.fromarray(getattr(data, name)()) for name in _PHOTOGRAPHS}


def _readings(
    path: Path,
    session: Session,
    wants: Wants,
    said: Mapping[str, Any],
    size: Size,
    photographs: Mapping[str, Image.Image],
) -> list[Reading]:
    """All readings that the shapes allow, the best first; without photographs of a grey picture."""
    pictures = list(photographs.values()) or [Image.new("RGB", size[::-1], (114, 114, 114))]
    preparations: Sequence[Preparation] = _PREPARATIONS
    if wants.kind == "uint8":
        preparations = (Preparation("rgb"), Preparation("bgr"))
    elif "stride" in said and "names" in said:  # ultralytics'
        preparations = _PREPARATIONS[:1]
    readings: list[Reading] = []
    answers: list[dict[str, np.ndarray]] = []
    for preparation in preparations:
        spec = preparation.spec(size)
        answers = [_run(path, session, wants, spec, picture) for picture in pictures]
        for layout in _fitting(answers[0], size, said.get("names")):
            ratings = [_rating(layout, answer, size) for answer in answers]
            parts = LAYOUTS[layout].find(answers[0], size)
            assert parts is not None
            mean = float(np.mean(ratings))
            readings.append(Reading(layout, preparation, parts.classes, mean))
    if not readings:
        near = nearest(answers[0])
        hint = f"nearest: {', '.join(near)}" if near else "none is near: is it a detector?"
        raise WeightsError(
            f"{path}: its outputs ({shapes_of(answers[0])}) are those of no known layout; {hint} "
            f"(known: {', '.join(LAYOUTS)})"
        )
    return sorted(readings, key=lambda reading: (-reading.rating, _oddity(reading)))


def _run(
    path: Path, session: Session, wants: Wants, spec: InputSpec, picture: Image.Image
) -> dict[str, np.ndarray]:
    pixels = np.stack([spec.prepare(picture)[0]] * (wants.batch or 1))
    try:
        arrays = session.run(feeds(wants, spec, pixels))
    except Exception as error:  # onnxruntime's kinds are private
        height, width = spec.size
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise WeightsError(f"{path}: cannot run on {height}×{width} ({reason})") from error
    return dict(zip(output_names(session, len(arrays)), arrays, strict=True))


def _fitting(outputs: Outputs, size: Size, names: Sequence[str] | None) -> list[str]:
    """Layouts that the shapes allow: of as many classes as there are names, or else of no more
    classes than boxes."""
    layouts = fitting(outputs, size, None if names is None else len(names))
    most = max(int(np.prod(x.shape[1:])) for x in outputs.values())
    found = {name: LAYOUTS[name].find(outputs, size) for name in layouts}
    return [name for name, parts in found.items() if parts and parts.classes**2 <= most]


def _rating(layout: str, outputs: Outputs, size: Size) -> float:
    """How sure the surest sensible box is; 0 if what is read makes no sense."""
    parts = LAYOUTS[layout].find(outputs, size)
    if parts is None:
        return 0.0
    decoded = decode_outputs(LAYOUTS[layout], parts, size, LAYOUTS[layout].background)
    scores = decoded.scores[0]
    if not scores.size or not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1.001:
        return 0.0
    if decoded.labels is not None:
        raw = parts.arrays.get("labels", parts.arrays.get("rows"))
        labels = raw if raw is None or raw.ndim < 3 else raw[..., 5]
        if labels is not None and (labels != np.round(labels)).any():
            return 0.0
    best = scores if decoded.labels is not None else scores.max(1)
    sensible = _sensible(decoded, size)
    sure = best > _SURE
    # Neighbours of one object are many where overlaps are left; not so most of all boxes.
    if sure.sum() > max(_CROWD, len(best) / 10) or (sure & ~sensible).sum() > sure.sum() / 2:
        return 0.0
    return float(np.where(sensible, best, 0).max())


def _sensible(decoded: Decoded, size: Size) -> np.ndarray:
    """Boxes of some pixels, mostly inside the input."""
    boxes = decoded.boxes[0]
    limit = np.array([size[1], size[0]] * 2)
    with np.errstate(invalid="ignore", over="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]
        inside = (boxes > -0.25 * limit).all(1) & (boxes < 1.25 * limit).all(1)
    return np.isfinite(boxes).all(1) & (sides >= 4).all(1) & inside


def _oddity(reading: Reading) -> int:
    """Of readings that are the same to the numbers, the one that its project would have: yolov5
    divides by 255, YOLOX does not."""
    odd = reading.layout == ("yolov5" if reading.preparation.scale == 1 else "yolox_decoded")
    return int(odd) + (reading.layout == "end_to_end")


def _names(best: Reading, said: Mapping[str, Any], path: Path) -> tuple[list[str], list[str]]:
    """Class names, and what is not known of them."""
    if "names" in said:
        names = list(said["names"])
        if len(set(names)) == len(names):
            return names, []
        return [f"{name} {i}" for i, name in enumerate(names)], [
            "names: some in the file's metadata are alike, so they were numbered"
        ]
    background = LAYOUTS[best.layout].background != "none"
    if best.classes:
        names, whose = usual_names(best.classes - background)
        return names, [f"names: the file has none; these are {whose}, check them"]
    names, whose = usual_names(90 if best.layout in _TENSORFLOW else 80)
    return names, [
        f"names: the file tells neither names nor how many; these are {whose}, check them"
    ]


def _input(best: Reading, size: Size, wants: Wants, said: Mapping[str, Any]) -> dict[str, Any]:
    preparation = best.preparation
    stretched = best.layout in ("detr", "detr_postprocessed", "ssd", "tensorflow", "torchvision")
    corner = best.layout in ("yolox", "yolox_decoded")
    values: dict[str, Any] = {"height": size[0], "width": size[1]}
    values["fit"] = "warp" if stretched else "letterbox"
    if not stretched:
        values |= {"place": "top left" if corner else "centre", "pad": 114}
    values["channels"] = preparation.channels
    if wants.kind != "uint8":
        values |= {"scale": preparation.scale}
        values |= {"mean": list(preparation.mean), "std": list(preparation.std)}
    return values


def _unknown(readings: Sequence[Reading], said: Mapping[str, Any], tried: bool) -> list[str]:
    """What no file tells, and what photographs could not decide."""
    best = readings[0]
    lines = ["input.fit, place and pad: no file tells them; these are the layout's usual ones"]
    if not tried:
        lines.append(
            "layout, channels, scale, mean and std: guessed from shapes alone, for scikit-image, "
            "whose photographs try them, is not installed"
        )
    elif best.rating == 0:
        lines.append("layout, channels, scale, mean and std: no photograph decides them")
    else:
        near = [r for r in readings[1:] if r.rating >= _NEAR * best.rating]
        rivals = list(
            dict.fromkeys(
                f"{r.layout}, {r.preparation.channels}, scale {r.preparation.scale:.3g}"
                for r in near
                if _reads_otherwise(r, best)
            )
        )
        if rivals:
            lines.append(f"the photographs speak nearly as well for: {'; or '.join(rivals[:3])}")
    if "license" not in said:
        lines.append("licence: the file tells none")
    return lines


def _reads_otherwise(reading: Reading, best: Reading) -> bool:
    twins = {"yolov5", "yolox_decoded"}
    alike = reading.layout == best.layout or {reading.layout, best.layout} == twins
    return not (alike and reading.preparation == best.preparation)


def _sanity(
    detector: ForeignDetector, photographs: Mapping[str, Image.Image]
) -> tuple[dict[str, list[str]], list[str]]:
    """What the description finds in each photograph, and doubts."""
    found: dict[str, list[str]] = {}
    for name, photograph in photographs.items():
        seen = detector.detect(photograph, max_det=300)
        rows = zip(seen.labels, seen.scores, strict=True)
        found[name] = [f"{detector.names[label]} {score:.2f}" for label, score in rows]
    doubts = []
    if photographs and not any(found.values()):
        doubts.append(
            "nothing is found in photographs of a person, a cat and a cup: right for a detector of "
            "other things, else the input or the layout is wrong"
        )
    crowds = [name for name, rows in found.items() if len(rows) > _CROWD]
    if crowds:
        doubts.append(f"more than {_CROWD} objects in {', '.join(crowds)}: nonsense, check layout")
    return found, doubts


def _operators(path: Path) -> tuple[dict[str, int], list[str]]:
    """How many of each operator an ONNX file has, if onnx is installed, and what that means."""
    if path.suffix != ".onnx":
        return {}, []
    try:
        import onnx
    except ImportError:
        return {}, []
    nodes = onnx.load_model(path, load_external_data=False).graph.node
    counts = dict(Counter(node.op_type for node in nodes).most_common())
    remarks = []
    if "NonMaxSuppression" in counts:
        remarks.append("the file suppresses overlaps itself")
    if {"QuantizeLinear", "DequantizeLinear", "ConvInteger"} & set(counts):
        remarks.append("the file holds int8 weights; bf16 and fp16 do not apply to it")
    if nodes and nodes[0].op_type in ("Sub", "Div", "Mul"):
        remarks.append(f"the file begins with {nodes[0].op_type}: it may normalise pixels itself")
    return counts, remarks
