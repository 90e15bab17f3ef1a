"""Weights in safetensors with JSON metadata: what the network is, sees and names, and how."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vovnet.device import usable_device
from vovnet.errors import VovnetError, WeightsError
from vovnet.fetched import fetched_path, list_fetched
from vovnet.files import write_atomically
from vovnet.input_spec import InputSpec
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.layers import fuse_norms
from vovnet.models.misfit import misfit, not_finite
from vovnet.shipped import SHIPPED, is_model_file, weights_path

_KEY = "vovnet"  # the metadata entry that holds our JSON


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically."""
    plain = {k: v.detach().contiguous() for k, v in tensors.items()}
    write_atomically(path, save(plain, {_KEY: json.dumps(metadata)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by `save_tensors`.

    Raises `WeightsError` if the file is missing, is no safetensors file (pickled checkpoints are
    refused: loading one runs the code inside it), or carries no metadata of ours.
    """
    return _read(path, with_tensors=True)


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if is_model_file(path):
        raise WeightsError(
            f"{path}: holds a network that only runs as it is; to train or export, give a "
            f".safetensors file or a run's folder; to learn from it, vovnet train --teacher {path}"
        )
    if not os.path.isfile(path):
        raise WeightsError(
            f"{path}: no such weights file, nor a shipped name: {', '.join(SHIPPED)}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = file.keys() if with_tensors else []
            tensors = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {why_unreadable(path, error)}") from None
    if _KEY not in metadata:
        raise WeightsError(f"{path}: no vovnet metadata inside; it was not written by vovnet")
    try:
        facts = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:  # no JSON, or such as to do harm
        raise WeightsError(f"{path}: its metadata is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise WeightsError(f"{path}: its metadata is not a JSON object; save it with vovnet")
    return tensors, facts


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone; raises like `load_tensors`."""
    return _read(path, with_tensors=False)[1]


def why_unreadable(path: Path, error: Exception) -> str:
    """Why a file is no safetensors file that can be read, and the mend."""
    if isinstance(error, PermissionError):
        return "permission denied; make it readable for this user"
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "a pickled checkpoint, which can run code when loaded; give a .safetensors file"
    return f"not a readable safetensors file ({' '.join(str(error).split())})"


def shipped_rows(pattern: str) -> list[dict[str, Any]]:
    """What `vovnet models` tells of the shipped weights whose names match a shell pattern."""
    rows = []
    for name, path in SHIPPED.items():
        if fnmatchcase(name, pattern):
            metadata = load_metadata(path)
            metrics = metadata.get("metrics", {})
            row = {key: metrics.get(key) for key in ("map_50", "map_50_95")}
            row["measured_on"] = _measured_on(metrics.get("command", ""))
            rows.append({"name": name, **row, "licence": metadata.get("licence")})
    return rows


def fetched_rows(pattern: str) -> list[dict[str, Any]]:
    """What `vovnet models` tells of fetched weights whose names match a shell pattern."""
    rows = []
    for name in list_fetched():
        if fnmatchcase(name, pattern):
            try:
                facts = load_metadata(fetched_path(name))
            except WeightsError:
                facts = {"source": "damaged; fetch it again with --force"}
            keys = ("model", "num_classes", "source", "licence", "revision", "sha256")
            rows.append({"name": name, **{key: facts.get(key) for key in keys}})
    return rows


def _measured_on(command: str) -> str | None:
    """Data set and split of a `vovnet val` command, such as "voc2007 report"."""
    words = command.split()
    after = dict(pairwise(words))
    if "--data" not in after:
        return None
    return " ".join(filter(None, (Path(after["--data"]).name, after.get("--split"))))


def detector_metadata(detector: Detector, **more: Any) -> dict[str, Any]:
    """What a weights file says about its detector, plus what the caller knows."""
    return {
        "model": detector.name,
        "names": list(detector.names),
        "input": detector.input_spec.to_dict(),
        **more,
    }


def save_detector(path: Path, detector: Detector, *, half: bool = False, **metadata: Any) -> None:
    """Write a detector's weights with the metadata that rebuilds it.

    `half` stores kernels and matrices as float16; norms and biases, few and of wide range, stay.
    """
    tensors = detector.network.state_dict()
    if half:
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in tensors.items()}
    save_tensors(path, tensors, detector_metadata(detector, **metadata))


def load_detector(
    name_or_path: str | Path,
    model: str | None = None,
    *,
    imgsz: int | None = None,
    device: str = "cpu",
    fuse: bool = False,
) -> Detector:
    """The detector of a weights file or shipped name: eval mode, float32, channels-last.

    `model`, if given, must be the one the file was made for; `imgsz` is another input side in
    pixels than the weights' own; `fuse` folds batch norms for speed (no training after that).
    Raises `WeightsError` naming what does not fit.
    """
    path = weights_path(name_or_path)
    tensors, metadata = load_tensors(path)
    name = metadata.get("model")
    if model is not None and name != model:
        raise WeightsError(f"{path}: holds weights for {name}, not for {model}; leave out --model")
    if "num_classes" in metadata:
        raise WeightsError(
            f"{path}: a backbone's, which finds nothing alone; train a detector on it: "
            f"vovnet train --model FAMILY-{name} --weights {name_or_path}"
        )
    names = metadata.get("names")
    if not (isinstance(name, str) and _are_names(names)):
        raise WeightsError(f"{path}: its metadata names no model or classes; is it a run's state?")
    detector = _blank(name, tuple(names))
    load_network(detector, tensors, str(path))
    detector.metadata = metadata
    if "input" in metadata:
        detector.input_spec = _input_spec(metadata["input"], path, detector)
    if imgsz is not None:
        detector.input_spec = detector.input_spec.with_side(imgsz, name)
    if fuse:
        fuse_norms(detector.network.eval())
    return detector.eval().to(usable_device(device)).to(memory_format=torch.channels_last)


def _blank(name: str, names: tuple[str, ...]) -> Detector:
    """A detector without numbers of its own: initialising them would only cost time."""
    with torch.device("meta"):
        detector = create_detector(name, names)
    stored = detector.network.state_dict().keys()
    if all(key in stored for key, _ in detector.network.named_buffers()):
        return detector
    return create_detector(name, names)  # some of its numbers are in no file


def _are_names(names: Any) -> TypeGuard[list[str]]:
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return texts and 0 < len(names) == len(set(names))


def _input_spec(values: Any, path: Path, detector: Detector) -> InputSpec:
    try:
        spec, own = InputSpec.from_dict(values), detector.input_spec
        for side in spec.size if own.multiple else ():
            own.with_side(side, detector.name)  # raises for one it cannot take
        return replace(spec, multiple=own.multiple)
    except (TypeError, AttributeError, OverflowError, VovnetError) as error:
        raise WeightsError(
            f"{path}: its input spec is not understood ({error}); is it of a newer vovnet?"
        ) from None


def load_network(detector: Detector, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the detector's network; every key and shape must fit, every number be one.

    Raises `WeightsError` that names the tensors at fault, and the likely cause.
    """
    own = {key: value.shape for key, value in detector.network.state_dict().items()}
    if fault := misfit(own, {key: value.shape for key, value in tensors.items()}):
        raise WeightsError(f"{source}: does not fit {detector.name}: {fault}")
    if fault := not_finite(tensors):
        raise WeightsError(f"{source}: {fault}")
    numbers = {
        key: tensors[key].to(value.dtype) for key, value in detector.network.state_dict().items()
    }
    detector.network.load_state_dict(numbers, assign=True)
