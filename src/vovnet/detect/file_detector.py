"""A detector whose network stands in a file of another runtime; it needs no torch."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vovnet.detect.engine import import_tensorrt, open_engine
from vovnet.detect.found import Found
from vovnet.detect.options import MAX_DET, Options
from vovnet.detect.run import AnyDetector
from vovnet.detect.sessions import Session, open_litert, open_ncnn, open_onnxruntime, open_openvino
from vovnet.detect.sidecar import Sidecar
from vovnet.detect.suppress import COMPETING, best_found, best_of, first
from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError, WeightsError
from vovnet.limits import usable_cores

FILE_RUNTIMES = ("onnxruntime", "openvino", "ncnn", "tensorrt", "litert", "eager")


class FileDetector(AnyDetector):
    """What `vovnet export` wrote, as a detector.

    It may be called by several threads at once. `version` is that of the runtime's package.
    """

    def __init__(self, sidecar: Sidecar, session: Session) -> None:
        self.sidecar = sidecar
        self.name = sidecar.model
        self.names = sidecar.names
        self.input_spec = sidecar.input
        self.masks = sidecar.masks
        self.runtime, self.precision = sidecar.runtime, sidecar.precision
        self.version = session.version
        self.metadata: dict[str, Any] = sidecar.to_dict()
        self.session = session

    def find(self, pixels: np.ndarray, how: Options) -> list[Found]:
        """What is found in inputs N×H×W×3 uint8, in their pixels."""
        if not self.sidecar.pixels:
            pixels = self.input_spec.normalize(pixels)
        size = self.sidecar.batch or len(pixels)
        found: list[Found] = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            if len(part) < size:  # a file for batches of just so many
                part = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
            found += self._batch(part, how)
        return found[: len(pixels)]

    def feeds(self, pixels: np.ndarray, how: Options | None = None) -> dict[str, np.ndarray]:
        """What the file is given for a batch of prepared inputs: they, and the thresholds that it
        takes. It suppresses within every class of all; for anything else it gives candidates."""
        how = how or Options()
        plain = _is_plain(how)
        asked = {
            "conf": np.array(how.conf, np.float32),
            "iou": np.array(how.iou if plain else 1.0, np.float32),
            "max_det": np.array((how.max_det or MAX_DET) if plain else COMPETING, np.int64),
        }
        shapes = self.session.inputs
        taken = {n: x.reshape([1] * len(shapes[n])) for n, x in asked.items() if n in shapes}
        return {"images": pixels, **taken}

    def _batch(self, pixels: np.ndarray, how: Options) -> list[Found]:
        outputs = self.session.run(self.feeds(pixels, how))
        if self.sidecar.outputs == "dense":
            return [best_found(b, s, how) for b, s in zip(*outputs[:2], strict=True)]
        rows = [_row(outputs, i) for i in range(len(pixels))]
        plain = _is_plain(how)
        return [first(r, how.max_det) if plain else best_of(r, how) for r in rows]


def _is_plain(how: Options) -> bool:
    return how.classes is None and not how.agnostic


def _row(outputs: Sequence[np.ndarray], index: int) -> Found:
    """One image's detections; none whose box is not finite."""
    boxes, scores, labels, count, *masks = (part[index] for part in outputs)
    found = [part[:count] for part in (boxes, scores, labels, *masks)]
    sound = np.isfinite(found[0]).all(1)
    return Found(*(part[sound] for part in found))


def open_file_detector(folder: Path, sidecar: Sidecar, threads: int | None = None) -> FileDetector:
    """The detector of an exported folder; `threads` is all usable cores unless given.

    Raises `VovnetError` for a runtime that is not known or cannot run the file, and
    `MissingExtraError` for one that is not installed.
    """
    threads = threads or usable_cores()
    files = [folder / name for name in sidecar.files]
    if sidecar.runtime == "onnxruntime":
        session = open_onnxruntime(files[0], threads)
    elif sidecar.runtime == "openvino":
        session = open_openvino(files[0], sidecar.precision, threads)
    elif sidecar.runtime == "ncnn":
        session = _ncnn_session(files, sidecar, threads)
    elif sidecar.runtime == "litert":
        call = open_litert(files[0], threads)
        session = Session(lambda feeds: call(feeds["images"]), {"images": []}, _litert(), {})
    elif sidecar.runtime == "tensorrt":
        session = _tensorrt_session(files[0])
    elif sidecar.runtime == "coreml":
        raise VovnetError(f"{files[0]}: Core ML runs on Apple's systems, from Swift; not here")
    elif sidecar.runtime == "eager":
        session = _torch_session(files[0])
    else:
        raise UnknownNameError("runtime", sidecar.runtime, FILE_RUNTIMES)
    return FileDetector(sidecar, session)


def _ncnn_session(files: Sequence[Path], sidecar: Sidecar, threads: int) -> Session:
    """ncnn has no batches: images run one after the other."""
    one = open_ncnn(files[0], files[1], 2, sidecar.precision, threads)
    classes = len(sidecar.names)

    def run(feeds: Any) -> list[np.ndarray]:
        rows = [one(image) for image in feeds["images"]]
        boxes, scores = (np.stack(column) for column in zip(*rows, strict=True))
        return [boxes.reshape(len(rows), -1, 4), scores.reshape(len(rows), -1, classes)]

    shape = [None, 3, *sidecar.input.size]
    return Session(run, {"images": shape}, version("ncnn"), {})


def _litert() -> str:
    return version("ai-edge-litert")


def _tensorrt_session(file: Path) -> Session:
    package = import_tensorrt()
    engine = open_engine(file.read_bytes(), str(file))
    import torch

    def run(feeds: Any) -> list[np.ndarray]:
        return [x.cpu().numpy() for x in engine(torch.from_numpy(feeds["images"]))]

    return Session(run, {"images": []}, package.__version__, {})


def _torch_session(file: Path) -> Session:
    """A program of torch.export, in the process's own number of threads."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    try:
        network = torch.export.load(file).module()
    except Exception as error:  # zip, JSON, schema: each has its own kinds
        raise WeightsError(f"{file}: torch cannot load it ({error}); export it again") from error

    def run(feeds: Any) -> list[np.ndarray]:
        with torch.inference_mode():
            return [x.numpy() for x in network(torch.from_numpy(feeds["images"]))]

    return Session(run, {"images": []}, torch.__version__, {})
