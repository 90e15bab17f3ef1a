"""The verb export."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vovnet.cli._options import Choice, Json, Many, Overwrite, read_choice
from vovnet.cli._print import note, print_json
from vovnet.errors import EXIT_OK, VovnetError


@Parameter(name="*")
@dataclass(frozen=True)
class Judged:
    """What the exported model is judged by."""

    data: str | None = None
    """Labelled images, PATH or PATH@SPLIT: accuracy before and after. int8 is calibrated on the
    split that is for training."""
    split: str | None = None
    """Which split judges (default: val, else test)."""
    max_drop: float = 0.01
    """The most that map_50_95 may fall; beyond it nothing is written."""
    pictures: Annotated[list[str] | None, Many] = None
    """Files, folders or globs whose boxes are compared (default: of --data, or scikit-image's)."""
    calibration: Annotated[list[str] | None, Many] = None
    """Files, folders or globs of pictures for int8, a few hundred (default: those of --data)."""

    def over(self, config: Path | None) -> "Judged":
        """With the data of a choice of `vovnet pick` where none were given."""
        if config is None or self.data is not None:
            return self
        values = read_choice(config)
        return replace(self, data=values["data"], split=self.split or values["split"])


def export(
    *,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    format: str | None = None,
    batch: str = "1",
    nms: bool = True,
    judged: Judged = Judged(),
    out: Path | None = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Write a detector for another runtime, and prove that it finds the same things.

    The folder has the model, vovnet.json (how to use it, and what was measured) and run.py, a
    program that needs neither torch nor vovnet. A model that loses more than --max-drop is refused
    (exit code 4), and nothing is written.

    Parameters
    ----------
    format
        onnx, openvino, ncnn, tensorrt, litert, coreml or torch (default: that of --config, else
        onnx).
    batch
        How many images at a time, or dynamic.
    nms
        Put the suppression of overlaps inside the model, where the format can (onnx); --no-nms
        gives all boxes and scores.
    out
        The new folder (default: runs/export/WEIGHTS-FORMAT-PRECISION).
    overwrite
        Replace an exported folder of that name.
    """
    from vovnet.deploy.export import export as export_detector
    from vovnet.deploy.formats import FORMATS, Order, find_format, picture_pixels

    judged = judged.over(choice.config)
    choice = choice.resolved()
    name = format or _format_of(choice)
    precision = choice.precision or "fp32"
    order = Order(precision, _batch(batch), not nms)
    find_format(name, order)
    detector = _torch_detector(choice)
    proof, calibration = _proof(detector, judged, precision)
    if precision == "int8":
        order = Order(precision, order.batch, order.raw, picture_pixels(detector, calibration))
    folder = out or Path("runs/export") / f"{Path(str(choice.weights)).stem}-{name}-{precision}"
    facts = export_detector(
        detector,
        folder,
        name,
        order,
        proof,
        weights=str(choice.weights),
        overwrite=overwrite,
        note=note,
    )
    if as_json:
        print_json(facts)
    else:
        _print(facts, FORMATS[name].runtime)
    return EXIT_OK


def _format_of(choice: Choice) -> str:
    """The format that the runtime of a choice reads."""
    from vovnet.deploy.formats import FORMATS

    for name, form in FORMATS.items():
        if form.runtime == choice.runtime:
            return name
    return "torch" if choice.runtime in ("channels_last", "compile", "aoti") else "onnx"


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise VovnetError(f"--batch {text}: must be a whole number from 1, or dynamic")
    return int(text)


def _torch_detector(choice: Choice) -> Any:
    from vovnet.models.weights import load_detector

    return load_detector(str(choice.weights), choice.model, imgsz=choice.imgsz)


def _proof(detector: Any, judged: Judged, precision: str) -> tuple[Any, list[Any]]:
    """What judges, and for int8 the pictures to calibrate on, of which none judges."""
    from vovnet.data.open import open_dataset, parse_source
    from vovnet.deploy.calibration import COUNT, calibration_pictures
    from vovnet.deploy.export import Proof
    from vovnet.detect.pictures import to_pictures
    from vovnet.predict import expand_sources

    truth, learned = None, []
    if judged.data is not None:
        path, given = parse_source(judged.data)
        truth = open_dataset(path, judged.split or given, detector.names, purpose="val")
        if precision == "int8" and not judged.calibration:
            learned = calibration_pictures(path, truth)
    calibration = expand_sources(judged.calibration) if judged.calibration else learned
    if judged.pictures:
        shown: list[Any] = list(expand_sources(judged.pictures))
    elif truth is not None:
        shown = [record.path for record in truth.records[:50]]
    else:
        shown = _photographs()
    side = max(detector.input_spec.size)
    pictures = to_pictures(shown, shrink_to=side)[0]
    return Proof(pictures, truth, judged.max_drop), list(calibration[:COUNT])


def _photographs() -> list[Path]:
    from vovnet.predict import expand_sources

    names = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
    return expand_sources([f"skimage:{name}" for name in names])


def _print(facts: dict[str, Any], runtime: str) -> None:
    if "boxes" in facts:
        _print_proof(facts)
    print(f"{'megabytes':<15} {facts['megabytes']}")
    if facts["runtime"] == "coreml":
        print(facts["path"])
    else:
        print(f"vovnet predict PICTURE --weights {facts['path']}")


def _print_proof(facts: dict[str, Any]) -> None:
    print(
        f"{facts['boxes']} boxes on {facts['pictures']} pictures: {facts['matched']} found again, "
        f"{facts['extra']} others; corners within {facts['max_abs_box_error']:.3g} px, "
        f"IoU at least {facts['min_iou']:.4f}, scores within {facts['max_score_error']:.2g}"
    )
    for key in ("map_50", "map_50_95", "mask_map_50", "mask_map_50_95"):
        if f"{key}_torch" in facts:
            before, after = facts[f"{key}_torch"], facts[f"{key}_exported"]
            print(f"{key:<15} {before:.4f} in torch, {after:.4f} exported")
    print(f"{'milliseconds':<15} {facts['torch_ms']:.1f} in torch, {facts['exported_ms']:.1f}")
    if facts["kept_in_float"]:
        print(f"kept in floating point: {', '.join(facts['kept_in_float'])}")
