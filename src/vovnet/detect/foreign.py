"""A detector of another project: its ONNX file in a runtime, read as its description says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vovnet.detect.description import Description
from vovnet.detect.found import Found
from vovnet.detect.layouts import (
    LAYOUTS,
    Decoded,
    Outputs,
    decode_outputs,
    fitting,
    nearest,
    shapes_of,
)
from vovnet.detect.masks import masks_of_prototypes
from vovnet.detect.options import MAX_DET, Options
from vovnet.detect.run import AnyDetector
from vovnet.detect.sessions import Session
from vovnet.detect.suppress import best_found, best_of, first
from vovnet.errors import WeightsError, is_out_of_memory
from vovnet.input_spec import InputSpec

_KINDS = ("float32", "float16", "float64", "uint8")


@dataclass(frozen=True)
class Wants:
    """What a file takes: the input for pictures, as N×3×H×W, N×H×W×3 or one 3×H×W, of what kind of
    numbers, how many at once (None: any), and the input that is told their size, if it has one."""

    pictures: str
    order: str
    kind: str
    batch: int | None
    size: tuple[int | None, int | None]
    told: str | None = None


class ForeignDetector(AnyDetector):
    """Another project's detector. Opening runs it once on grey pictures, to see that file and
    description agree.

    `--iou` has no say in finished detections (`vovnet.detect.layouts`). Raises `WeightsError` for
    a file that the description does not fit.
    """

    def __init__(
        self, path: Path, description: Description, session: Session, runtime: str, precision: str
    ) -> None:
        self.path, self.description, self.session = path, description, session
        self.name, self.names = path.stem, description.names
        self.input_spec, self.masks = description.input, LAYOUTS[description.layout].masks
        self.runtime, self.precision = runtime, precision
        self.version = session.version
        self.metadata: dict[str, Any] = {
            "model": self.name,
            "names": list(self.names),
            "input": self.input_spec.to_dict(),
            "layout": description.layout,
            "licence": description.licence,
        }
        self.wants = wants_of(session, path)
        _agree(self.wants, description, path)
        self.batch = self._try_out()

    def find(self, pixels: np.ndarray, how: Options) -> list[Found]:
        """What is found in inputs N×H×W×3 uint8, in their pixels."""
        size = self.batch or len(pixels)
        found: list[Found] = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            if len(part) < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            found += self.chosen(self.outputs(part), how)
        return found[: len(pixels)]

    def chosen(self, outputs: Outputs, how: Options) -> list[Found]:
        """What outputs for a batch say is found in each of its inputs."""
        decoded = self.decode(outputs)
        size = self.input_spec.size
        return [_chosen(decoded, i, how, size) for i in range(len(decoded.boxes))]

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The file's outputs by name, for a batch of inputs that it takes at once."""
        arrays = self.session.run(feeds(self.wants, self.input_spec, pixels))
        return dict(zip(output_names(self.session, len(arrays)), arrays, strict=True))

    def decode(self, outputs: Outputs) -> Decoded:
        """Boxes and scores; raises `WeightsError` for outputs that the layout does not have."""
        description, size = self.description, self.input_spec.size
        layout = LAYOUTS[description.layout]
        parts = layout.find(outputs, size)
        if parts is None:
            raise WeightsError(f"{self.path}: {_misfit(outputs, description)}")
        wanted = len(self.names) + (description.background != "none")
        if parts.classes not in (0, wanted):
            extra = " and the background" if description.background != "none" else ""
            others = [n for n in fitting(outputs, size, len(self.names)) if n != description.layout]
            hint = f", or set layout to {' or '.join(others)}" if others else ""
            raise WeightsError(
                f"{self.path}: its outputs ({shapes_of(outputs)}) tell {parts.classes} classes in "
                f"layout {description.layout}, but {description.source} names {len(self.names)}"
                f"{extra}; mend names{hint}"
            )
        decoded = decode_outputs(layout, parts, size, description.background)
        if decoded.labels is None:
            return decoded
        # Rows for a class without a name stand for nothing.
        known = decoded.labels < len(self.names)
        return decoded._replace(scores=np.where(known, decoded.scores, 0))

    def _try_out(self) -> int | None:
        """How many pictures it takes at once: files that leave it open may mean one all the same.

        Raises `WeightsError` for a file that does not run, or does not fit its description.
        """
        grey = np.full((2, *self.input_spec.size, 3), 114, np.uint8)
        if self.wants.batch is None:
            try:
                several = self.outputs(grey)
                if all(len(x) == 2 for x in several.values()):
                    self.decode(several)
                    return None
            except WeightsError:
                raise
            except Exception:  # the runtimes' kinds are private
                pass
        batch = self.wants.batch or 1
        try:
            outputs = self.outputs(np.repeat(grey[:1], batch, 0))
        except Exception as error:
            height, width = self.input_spec.size
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            if is_out_of_memory(error):
                raise WeightsError(
                    f"{self.path}: asks for more memory than there is, for one picture of "
                    f"{height}×{width}; export it anew"
                ) from error
            raise WeightsError(
                f"{self.path}: cannot run on {height}×{width} ({reason}); mend the size in "
                f"{self.description.source}"
            ) from error
        self.decode(outputs)
        return batch


def wants_of(session: Session, path: Path) -> Wants:
    """What the file takes; raises `WeightsError` for what no picture can be given to."""
    shapes = {name: session.inputs[name] for name in session.types}
    told = [
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and shape[1] == 2 and session.types[name].startswith("int")
    ]
    pictures = [name for name in shapes if len(shapes[name]) in (3, 4)]
    listed = ", ".join(f"{n} {_told_shape(s)} {session.types[n]}" for n, s in shapes.items())
    if len(pictures) != 1 or len(told) > 1 or len(told) + 1 != len(shapes):
        raise WeightsError(f"{path}: takes {listed}; it must take pictures, and nothing else")
    [name] = pictures
    shape = [d if isinstance(d, int) and d > 0 else None for d in shapes[name]]
    kind = session.types[name]
    planes = shape[-3] in (3, None) and not (shape[-3] is None and shape[-1] == 3)
    if kind not in _KINDS or not (planes or shape[-1] == 3):
        raise WeightsError(f"{path}: takes {listed}; it must take 3 channels of float or uint8")
    if len(shape) == 3 and not planes:
        raise WeightsError(f"{path}: takes {listed}; export it for pictures N×3×H×W")
    size = (shape[-2], shape[-1]) if planes else (shape[-3], shape[-2])
    order = ("N×3×H×W" if planes else "N×H×W×3") if len(shape) == 4 else "3×H×W"
    batch = shape[0] if len(shape) == 4 else 1
    return Wants(name, order, kind, batch, size, told[0] if told else None)


def feeds(wants: Wants, spec: InputSpec, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
    """What the file is given for inputs N×H×W×3 uint8."""
    if wants.kind == "uint8":
        images = pixels[..., ::-1] if spec.channels == "bgr" else pixels
        images = images.transpose(0, 3, 1, 2)
    else:
        images = spec.normalize(pixels).astype(wants.kind)
    if wants.order == "N×H×W×3":
        images = images.transpose(0, 2, 3, 1)
    images = np.ascontiguousarray(images[0] if wants.order == "3×H×W" else images)
    if wants.told is None:
        return {wants.pictures: images}
    height, width = spec.size
    return {wants.pictures: images, wants.told: np.array([[width, height]] * len(pixels), np.int64)}


def output_names(session: Session, count: int) -> list[str]:
    """The outputs' names; numbers for those that have none."""
    return [name or str(i) for i, name in enumerate(session.outputs or [""] * count)]


def _agree(wants: Wants, description: Description, path: Path) -> None:
    """Raise `WeightsError` for a description of another input than the file's."""
    spec, source = description.input, description.source
    for there, said in zip(wants.size, spec.size, strict=True):
        if there not in (None, said):
            takes = "×".join(str(side or "any") for side in wants.size)
            said_size = "×".join(map(str, spec.size))
            raise WeightsError(
                f"{path}: takes {takes}, but {source} says {said_size}; mend input.height and "
                "input.width"
            )
    if wants.kind == "uint8" and (spec.mean, spec.std) != ((0, 0, 0), (1, 1, 1)):
        raise WeightsError(
            f"{path}: takes uint8 pixels, but {source} normalises them; leave out input.scale, "
            "input.mean and input.std"
        )


def _misfit(outputs: Outputs, description: Description) -> str:
    says = LAYOUTS[description.layout].says
    near = fitting(outputs, description.input.size, len(description.names)) or nearest(outputs)
    hint = f"set layout to {' or '.join(near)}" if near else "no known layout is near them"
    return (
        f"its outputs ({shapes_of(outputs)}) are not those of layout {description.layout}, {says}; "
        f"{hint} in {description.source}"
    )


def _chosen(decoded: Decoded, index: int, how: Options, size: tuple[int, int]) -> Found:
    """One picture's detections, best first."""
    boxes, scores = decoded.boxes[index], decoded.scores[index]
    if decoded.coefficients is not None and decoded.prototypes is not None:
        found = best_found(boxes, scores, how, decoded.coefficients[index])
        assert found.masks is not None  # the coefficients, until here
        masks = masks_of_prototypes(found.masks, decoded.prototypes[index], found.boxes, size)
        return found._replace(masks=masks)
    if decoded.labels is None:
        return best_found(boxes, scores, how)
    keep = ((scores > how.conf) & np.isfinite(boxes).all(1)).nonzero()[0]
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    found = Found(boxes[keep], scores[keep], decoded.labels[index][keep])
    if how.classes is not None:
        there = np.isin(found.labels, how.classes)
        found = Found(found.boxes[there], found.scores[there], found.labels[there])
    return best_of(found, how) if how.agnostic else first(found, how.max_det or MAX_DET)


def _told_shape(shape: list[Any]) -> str:
    return "×".join(str(d) if isinstance(d, int) else "?" for d in shape)
