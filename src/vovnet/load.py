"""One way to a detector, whatever computes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vovnet.detect.description import Description, read_description
from vovnet.detect.file_detector import FileDetector, open_file_detector
from vovnet.detect.foreign import ForeignDetector
from vovnet.detect.sessions import Session, open_model_file, open_onnxruntime, open_openvino
from vovnet.detect.sidecar import SIDECAR, Sidecar, read_sidecar
from vovnet.errors import VovnetError, WeightsError
from vovnet.limits import usable_cores
from vovnet.shipped import (
    MODEL_FILES,
    SHIPPED,
    has_torch,
    is_model_file,
    need_torch,
    shipped_onnx,
    weights_path,
)

# Runtimes that read an ONNX file as a detector, and in which precision without more ado.
ONNX_READERS = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "fp16")}


def file_readers(name: str | Path) -> dict[str, tuple[str, ...]]:
    """`ONNX_READERS`, of the .xml of an IR OpenVINO alone."""
    return {k: v for k, v in ONNX_READERS.items() if k == "openvino" or Path(name).suffix != ".xml"}


def load_detector(
    weights: str | Path,
    model: str | None = None,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    imgsz: int | None = None,
    fuse: bool = False,
    calibration: Sequence[Any] = (),
    describe: str | Path | None = None,
) -> Any:
    """The detector of a shipped name, a weights file, a run's folder, or what `export` wrote; or
    another project's ONNX file or OpenVINO IR (its .xml), as a JSON file beside it or `describe`
    tells (docs/foreign.md).

    `runtime` is one of `vovnet.runtimes.RUNTIMES`; left out, it is torch's eager mode, the
    exported file's own, or ONNX Runtime where torch is not installed. In torch the detector is a
    `vovnet.models.Detector`, in eval mode; `fuse` folds its batch norms for speed (no training
    after that). `precision` is fp32 unless given, or the exported file's. `model`, if given, must
    be the one that the weights are for; `imgsz` is another input side in pixels than the weights'
    own; `threads` all usable cores unless given; `calibration` holds pictures (see `detect`), a
    few hundred of those trained on, for int8.

    All of them have the same `detect()`, `names` and `input_spec`. Raises `WeightsError` and
    `VovnetError` for what cannot be had, `MissingExtraError` for what is not installed.
    """
    path = Path(weights)
    if describe is not None and not is_model_file(path):
        listed = " or ".join(MODEL_FILES)
        raise WeightsError(f"{weights}: only an {listed} file is described; leave out --describe")
    if (path / SIDECAR).is_file():
        sidecar = read_sidecar(path)
        _agree(str(weights), sidecar, model, runtime, precision, device, imgsz)
        return open_file_detector(path, sidecar, threads)
    if is_model_file(path):
        return _open_onnx(path, model, runtime, precision, device, threads, imgsz, describe)
    if runtime is None:
        runtime = "eager" if has_torch() else default_runtime(weights, device, imgsz)
    precision = precision or "fp32"
    if precision in ONNX_READERS.get(runtime, ()):
        twin = _twin(weights, device, imgsz)
        if twin is not None:
            return _open_onnx(twin, model, runtime, precision, device, threads, imgsz)
    weights_path(weights)  # a name of nothing is told as such, with torch or without
    need_torch(_beyond_onnx(weights, runtime, precision, device, imgsz))
    from vovnet.models.weights import load_detector as load_torch
    from vovnet.runtimes.as_detector import open_detector

    plain = runtime == "eager" and precision == "fp32"
    detector = load_torch(weights, model, imgsz=imgsz, device=device, fuse=fuse or not plain)
    if plain:
        return detector
    return open_detector(
        detector, runtime, precision, device=device, threads=threads, calibration=calibration
    )


def default_runtime(weights: str | Path, device: str = "cpu", imgsz: int | None = None) -> str:
    """The runtime that starts fastest: ONNX Runtime for what is ONNX or ships as such, else
    torch."""
    if is_model_file(weights):
        return next(iter(file_readers(weights)))
    return "eager" if _twin(weights, device, imgsz) is None else "onnxruntime"


def served_by(weights: str, device: str = "cpu", imgsz: int | None = None) -> str | None:
    """What runs weights for somebody who names no runtime: what starts fastest of those that ship;
    None, their own, for all else."""
    return default_runtime(weights, device, imgsz) if weights in SHIPPED else None


def _twin(weights: str | Path, device: str, imgsz: int | None) -> Path | None:
    """The shipped ONNX file that does what is asked of shipped weights, if there is one."""
    path = shipped_onnx(str(weights)) if device == "cpu" else None
    if path is None or imgsz is None:
        return path
    session = open_onnxruntime(path, 1)
    return path if _facts(path, session)["input"]["size"][0] == imgsz else None


def _beyond_onnx(
    weights: str | Path, runtime: str, precision: str, device: str, imgsz: int | None
) -> str:
    """Which of the things asked for no shipped ONNX file does, as options name them."""
    if shipped_onnx(str(weights)) is None:
        return str(weights)
    if device != "cpu":
        return f"--device {device}"
    if _twin(weights, device, imgsz) is None:
        return f"--imgsz {imgsz}"
    return f"--runtime {runtime}" + f" in {precision}" * (precision != "fp32")


def _agree(
    source: str,
    sidecar: Sidecar,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    device: str,
    imgsz: int | None,
) -> None:
    """Raise `WeightsError` for something else than what a file was exported for."""
    side = sidecar.input.size[0]
    asked = {
        "--model": (model, sidecar.model),
        "--runtime": (runtime, sidecar.runtime),
        "--precision": (precision, sidecar.precision),
        "--imgsz": (imgsz, side),
        "--device": (device, "cpu"),
    }
    for option, (wanted, there) in asked.items():
        if wanted not in (None, there):
            raise WeightsError(
                f"{source}: was exported for {option} {there}, not {wanted}; "
                f"leave out {option}, or export it again"
            )


def _open_onnx(
    path: Path,
    model: str | None,
    runtime: str | None,
    precision: str | None,
    device: str,
    threads: int | None,
    imgsz: int | None,
    describe: str | Path | None = None,
) -> FileDetector | ForeignDetector:
    """The detector of an end-to-end ONNX file, which says itself what it is, or of another one or
    an IR, which are described."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path")
    if (path.parent / SIDECAR).is_file() and path.suffix == ".xml":
        raise WeightsError(f"{path}: vovnet export wrote it; give its folder, {path.parent}")
    threads = threads or usable_cores()
    session = open_model_file(path, threads)
    foreign = "vovnet" not in session.metadata
    if describe is not None and not foreign:
        raise WeightsError(f"{path}: says itself how it is to be read; leave out --describe")
    facts = {"precision": "fp32"} if foreign else _facts(path, session)
    own = facts["precision"]
    readers = file_readers(path)
    runtime, precision = runtime or next(iter(readers)), precision or own
    if runtime not in readers or precision not in (readers[runtime] if own == "fp32" else (own,)):
        able = ", ".join(readers)
        raise VovnetError(f"{path}: holds {own}, for {able}; not for {runtime} {precision}")
    if foreign:
        description = _described(path, describe)
        said = Sidecar(path.stem, description.names, description.input, runtime, precision, {})
        _agree(str(path), said, model, runtime, precision, device, imgsz)
        if (runtime, precision) != (next(iter(readers)), "fp32"):
            session = open_openvino(path, precision, threads)
        return ForeignDetector(path, description, session, runtime, precision)
    facts |= {"runtime": runtime, "precision": precision, "files": {path.name: ""}}
    sidecar = Sidecar.from_dict(facts, str(path))
    _agree(str(path), sidecar, model, runtime, precision, device, imgsz)
    if runtime == "onnxruntime":
        return FileDetector(sidecar, session)
    facts["outputs"] = "dense"
    return open_file_detector(path.parent, Sidecar.from_dict(facts, str(path)), threads)


def _described(path: Path, describe: str | Path | None) -> Description:
    """What is told of another project's ONNX file, by the file given or the one beside it."""
    beside = path.with_suffix(".json")
    if describe is None and not beside.is_file():
        raise WeightsError(
            f"{path}: does not say how it is to be read, and {beside.name} beside it is missing; "
            f"vovnet describe {path} --out {beside} proposes one"
        )
    return read_description(Path(describe) if describe is not None else beside)


def _facts(path: Path, session: Session) -> dict[str, Any]:
    """What an end-to-end ONNX file says of itself: a sidecar's values, as `vovnet export` wrote
    them."""
    try:
        facts = json.loads(session.metadata["vovnet"])
    except ValueError as error:
        raise WeightsError(f"{path}: is damaged ({error}); export the model again") from None
    if not isinstance(facts, dict) or "precision" not in facts:
        raise WeightsError(f"{path}: is damaged (no precision); export the model again")
    return facts
