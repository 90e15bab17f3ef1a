"""`vovnet export`: a folder with the model, its sidecar and a script, written once it is proven."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vovnet import __version__
from vovnet.data.record import Dataset
from vovnet.deploy.formats import Format, Order, find_format
from vovnet.deploy.gate import accuracies, compare, milliseconds, told
from vovnet.deploy.sensitivity import most_sensitive
from vovnet.detect.file_detector import open_file_detector
from vovnet.detect.pictures import Picture
from vovnet.detect.sidecar import SIDECAR, Sidecar, file_hash, write_sidecar
from vovnet.errors import RefusedError, VovnetError
from vovnet.models.detector import Detector

_SCRIPTS = Path(__file__).parent / "scripts"
_IMPORT = "import numpy as np\n"  # beside it stands that of the runtime
_PACKAGES = {"litert": "from ai_edge_litert.interpreter import Interpreter"}
_NO_SCRIPT = ("eager", "tensorrt", "coreml")  # they need torch, or a Mac
# Shares of the layers, the most sensitive first, that stay in floating point until the drop fits.
_KEPT = (0.0, 0.05, 0.15, 0.3, 0.6)

Note = Callable[[str], None]


@dataclass(frozen=True)
class Proof:
    """What an export is judged by: pictures, and labelled images if there are some."""

    pictures: Sequence[Picture]
    truth: Dataset | None = None
    max_drop: float = 0.01


def export(
    detector: Detector,
    out: Path,
    format_name: str,
    order: Order,
    proof: Proof,
    *,
    weights: str = "",
    overwrite: bool = False,
    note: Note = lambda line: None,
) -> dict[str, Any]:
    """Write a detector into a new folder `out`, and return what the gate found.

    The model is run before its folder gets its name: box for box on `proof.pictures`, and by
    accuracy on `proof.truth`. int8 that loses more than `proof.max_drop` keeps its most sensitive
    layers in floating point. Raises `RefusedError` (exit 4) for a model that finds something else
    or loses more, and leaves nothing behind; `VovnetError` for what a format cannot hold.
    """
    chosen = find_format(format_name, order, two_stages=detector.decoder is None)
    _free(out, overwrite)
    made = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with tempfile.TemporaryDirectory(prefix="vovnet-") as place:
            maker = _Maker(detector, folder, chosen, weights, Path(place))
            facts = _prove(maker, order, proof, note)
        facts |= {"path": str(out), "format": format_name}
        if out.exists():
            shutil.rmtree(out)
        os.chmod(folder, 0o755)
        os.replace(folder, out)
    except OSError as error:
        raise VovnetError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            for parent in made:
                parent.rmdir()
    return facts


def _free(out: Path, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not (out / SIDECAR).is_file():
        raise VovnetError(f"--out {out}: is there already, and no exported folder; give another")
    if not overwrite:
        raise VovnetError(f"--out {out}: is there already; give another, or --overwrite it")
    others = {path.name for path in out.iterdir()} - {SIDECAR, "run.py", *_files(out)}
    if others:
        raise VovnetError(f"--out {out}: holds {min(others)} too, which would be lost; move it")


def _files(folder: Path) -> list[str]:
    """The model's files in an exported folder, as its sidecar names them."""
    try:
        return list(json.loads((folder / SIDECAR).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


@dataclass(frozen=True)
class _Maker:
    """What is exported, where to and how; `place` holds files that several tries share."""

    detector: Detector
    folder: Path
    chosen: Format
    weights: str
    place: Path

    def write(self, order: Order) -> Sidecar:
        """Write model, sidecar and script into the folder."""
        for old in self.folder.iterdir():
            old.unlink()
        runtime = self.chosen.runtime
        names = self.chosen.write(self.detector, self.folder, order, self.place)
        whole = self.chosen.end_to_end and not order.raw
        sidecar = Sidecar(
            model=self.detector.name,
            names=self.detector.names,
            input=self.detector.input_spec,
            runtime=runtime,
            precision=order.precision,
            files={name: file_hash(self.folder / name) for name in names},
            outputs="detections" if whole else "dense",
            batch=order.batch,
            pixels=self.chosen.pixels,
            masks=self.detector.masks,
            weights=self.weights,
            licence=self.detector.metadata.get("licence"),
            versions=_versions(runtime),
        )
        write_sidecar(self.folder, sidecar)
        if runtime not in _NO_SCRIPT:
            (self.folder / "run.py").write_text(_script(runtime, whole), encoding="utf-8")
        return sidecar


def _prove(maker: _Maker, order: Order, proof: Proof, note: Note) -> dict[str, Any]:
    """Write and judge, for int8 again with more layers kept until the drop fits."""
    if not maker.chosen.runs_here:
        note(f"{maker.chosen.runtime} does not run here: what it finds is not compared")
        return _facts(maker, maker.write(order))
    before = accuracies(maker.detector, proof.truth) if proof.truth else {}
    ranked: list[tuple[int, str]] = []
    facts: dict[str, Any] = {}
    for share in _KEPT if order.precision == "int8" and before else _KEPT[:1]:
        if share and not ranked:
            note("int8 loses too much; looking for the layers that it hurts most")
            ranked = most_sensitive(maker.detector, order.pixels)
        kept = ranked[: round(share * len(ranked))]
        keep = tuple(number for number, _ in kept)
        sidecar = maker.write(replace(order, keep=keep))
        facts = _facts(maker, sidecar) | _judge(maker, sidecar, proof, before)
        facts["kept_in_float"] = [name for _, name in kept]
        if facts.get("map_50_95_drop", 0.0) <= proof.max_drop:
            break
    _refuse(facts, order, proof)
    write_sidecar(maker.folder, replace(sidecar, measured=facts))
    return facts


def _script(runtime: str, whole: bool) -> str:
    """The folder's own program, of the parts that its runtime needs."""
    backend = runtime if whole or runtime != "onnxruntime" else "onnxruntime_dense"
    parts = ["head", backend, *([] if whole else ["suppress"]), "tail"]
    first, *rest = ((_SCRIPTS / f"{part}.txt").read_text(encoding="utf-8") for part in parts)
    package = _PACKAGES.get(runtime, f"import {runtime}")
    return first.replace(_IMPORT, f"{package}\n{_IMPORT}") + "".join(f"\n\n{x}" for x in rest)


def _facts(maker: _Maker, sidecar: Sidecar) -> dict[str, Any]:
    return {
        "precision": sidecar.precision,
        "runtime": sidecar.runtime,
        "sha256": next(iter(sidecar.files.values())),
        "megabytes": _megabytes(maker.folder / name for name in sidecar.files),
    }


def _judge(
    maker: _Maker, sidecar: Sidecar, proof: Proof, before: dict[str, float]
) -> dict[str, Any]:
    exported = open_file_detector(maker.folder, sidecar)
    likeness = compare(maker.detector, exported, proof.pictures)
    own_ms, exported_ms = milliseconds(maker.detector, exported, proof.pictures[0])
    facts: dict[str, Any] = {
        "torch_ms": round(own_ms, 2),
        "exported_ms": round(exported_ms, 2),
        **told(likeness),
        "exact": likeness.is_exact(),
    }
    if proof.truth is None:
        return facts
    after = accuracies(exported, proof.truth)
    for key, value in before.items():
        facts[f"{key}_torch"] = value
        facts[f"{key}_exported"] = after.get(key)
        facts[f"{key}_drop"] = value - after.get(key, 0.0)
    return facts


def _refuse(facts: dict[str, Any], order: Order, proof: Proof) -> None:
    """Raise `RefusedError` for what must not go into use."""
    drop = facts.get("map_50_95_drop")
    if drop is not None and drop > proof.max_drop:
        raise RefusedError(
            f"refused: map_50_95 falls by {drop:.4f}, from {facts['map_50_95_torch']:.4f} to "
            f"{facts['map_50_95_exported']:.4f}; --max-drop {proof.max_drop:g} allows less"
        )
    if order.precision == "fp32" and not facts["exact"]:
        raise RefusedError(
            f"refused: of {facts['boxes']} boxes {facts['matched']} are found again and "
            f"{facts['extra']} others, scores differ by up to {facts['max_score_error']:.4f}; "
            "this is no rounding"
        )


def _megabytes(files: Iterable[Path]) -> float:
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def _versions(runtime: str) -> dict[str, str]:
    """Of what wrote the model and of what runs it."""
    packages = ("torch", "onnx", *({runtime, "nncf"} - {"eager"}))
    found = {"vovnet": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
