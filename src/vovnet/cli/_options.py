"""Options and checks that several verbs share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vovnet.cli._print import note
from vovnet.detect.options import CONF, IOU, Options, class_labels
from vovnet.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PARTIAL, VovnetError
from vovnet.shipped import default_weights

DEFAULT_WEIGHTS = "vovdet_nano.voc"
_CHOSEN = ("weights", "runtime", "precision", "imgsz", "device")

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON on stdout.")]
Overwrite = Annotated[bool, Parameter(negative=())]
Many = Parameter(consume_multiple=True)


@Parameter(name="*")
@dataclass(frozen=True)
class Choice:
    """A detector as the options name it; what is None is its own."""

    weights: str | None = None
    """A shipped name, a .safetensors file, a run's folder, what `vovnet export` wrote, or another
    project's .onnx file or .xml of an OpenVINO IR (default: vovdet_nano.voc)."""
    model: str | None = None
    """The model that the weights must be for; without --weights, its shipped ones are taken."""
    imgsz: int | None = None
    """Input side in pixels (default: the weights' own)."""
    runtime: str | None = None
    """What computes the network: eager, onnxruntime, openvino, ncnn, compile..., or auto, which is
    the fastest here, measured once (default: what starts fastest)."""
    precision: str | None = None
    """What it computes in: fp32, bf16, fp16 or int8 (default: fp32, or the exported file's)."""
    device: str | None = None
    """What to compute on: cpu, cuda or cuda:1."""
    describe: Path | None = None
    """The description of another project's file (default: FILE.json beside FILE.onnx or .xml)."""
    config: Path | None = None
    """A choice of `vovnet pick --out`, which names all of these; options beside it win."""

    def resolved(self) -> "Choice":
        """With the values of `config` for what was not given, and weights and device filled in.

        Raises `VovnetError` for a file that `vovnet pick` did not write.
        """
        given = {key: value for key, value in vars(self).items() if value is not None}
        if self.config is not None:
            named = read_choice(self.config)
            given = {key: named[key] for key in _CHOSEN} | given | {"config": None}
        choice = Choice(**given)
        weights = choice.weights or (
            default_weights(choice.model) if choice.model else DEFAULT_WEIGHTS
        )
        return replace(choice, weights=weights, device=choice.device or "cpu")

    def load(self, threads: int | None = None) -> Any:
        """The detector of a resolved choice, ready to use; what ships as ONNX runs in ONNX Runtime
        unless told otherwise, for that starts fastest. `threads` are all cores unless given."""
        from vovnet.load import load_detector, served_by

        assert self.weights is not None
        assert self.device is not None
        if self.precision == "int8" and not Path(self.weights).is_dir():
            raise VovnetError(
                f"{self.weights}: int8 is calibrated on pictures when it is exported; use the "
                "folder that vovnet export --config CHOICE.yaml, or --precision int8 --data, writes"
            )
        runtime = self._fastest() if self.runtime == "auto" else self.runtime
        return load_detector(
            self.weights,
            self.model,
            runtime=runtime or served_by(self.weights, self.device, self.imgsz),
            precision=self.precision,
            device=self.device,
            threads=threads,
            imgsz=self.imgsz,
            fuse=True,
            describe=self.describe,
        )

    def _fastest(self) -> str:
        from vovnet.lab.fastest import fastest_runtime

        found = fastest_runtime(
            str(self.weights),
            self.precision or "fp32",
            imgsz=self.imgsz,
            device=self.device or "cpu",
            note=note,
        )
        when = "as measured before" if found.known else "measured now"
        eager = "" if found.eager_ms is None else f", eager {found.eager_ms:.1f}"
        note(f"{found.runtime}: {found.ms:.1f} ms an image{eager}, {when}")
        return found.runtime


@Parameter(name="*")
@dataclass(frozen=True)
class Shown:
    """What of all that the network sees is shown."""

    conf: float = CONF
    """Least score shown."""
    iou: float = IOU
    """Overlap above which the weaker of two boxes of a class is dropped."""
    max_det: int | None = None
    """The most objects of a picture (default: 300; of two-stage detectors 100)."""
    classes: Annotated[list[str] | None, Many] = None
    """Names or numbers of the classes that are shown (default: all)."""
    agnostic: Annotated[bool, Parameter(negative=())] = False
    """Drop the weaker of two boxes that overlap whatever their classes are."""

    def __post_init__(self) -> None:
        Options(self.conf, self.iou, self.max_det)

    def options(self, names: Sequence[str]) -> dict[str, Any]:
        """What `detect` takes; raises `VovnetError` for classes that are not in `names`."""
        classes = None if self.classes is None else split_commas(self.classes)
        return vars(self) | {"classes": class_labels(classes, names)}


def read_choice(config: Path) -> dict[str, Any]:
    """`_CHOSEN`, data and split of a file that `vovnet pick` wrote."""
    from vovnet.data.yaml_file import parse_yaml

    try:
        values = parse_yaml(config.read_text(encoding="utf-8"), str(config))
    except OSError as error:
        raise VovnetError(f"--config {config}: cannot be read ({error.strerror})") from None
    if not isinstance(values, dict) or not all(key in values for key in _CHOSEN):
        raise VovnetError(f"--config {config}: is not what vovnet pick --out writes")
    return {key: values.get(key) for key in (*_CHOSEN, "data", "split")}


def exit_code(failed: int, rows: int) -> int:
    """0 if no row failed, 2 if every one did, else 3."""
    if not failed:
        return EXIT_OK
    return EXIT_BAD_INPUT if failed == rows else EXIT_PARTIAL


def split_commas(values: Iterable[str]) -> list[str]:
    """`["a,b", "c"]` as a, b, c, each once: lists may be given either way."""
    words = (word.strip() for value in values for word in value.split(","))
    return list(dict.fromkeys(filter(None, words)))
