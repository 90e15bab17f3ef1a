"""What lies beside an exported model and says how to use it: `vovnet.json`."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vovnet.errors import VovnetError, WeightsError
from vovnet.files import write_atomically
from vovnet.input_spec import InputSpec

FORMAT = 1
SIDECAR = "vovnet.json"

Outputs = Literal["detections", "dense"]


@dataclass(frozen=True)
class Sidecar:
    """How to prepare a model's images, run it, and read what it gives.

    `files` are the model's, by name with their SHA-256, the one to open first. `outputs`
    "detections" are boxes, scores, labels and count after suppression (and masks), "dense" all
    boxes N×A×4 and scores N×A×C, both in input pixels. `batch` None takes any number of images;
    `pixels` tells whether it takes uint8 N×H×W×3 or normalised float32 N×3×H×W. `measured` is what
    the gate found.
    """

    model: str
    names: tuple[str, ...]
    input: InputSpec
    runtime: str
    precision: str
    files: dict[str, str]
    outputs: Outputs = "detections"
    batch: int | None = 1
    pixels: bool = True
    masks: bool = False
    weights: str | None = None
    licence: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT} | asdict(self) | {"input": self.input.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> "Sidecar":
        """The inverse; raises `WeightsError`, which begins with `source`."""
        version = values.get("format")
        if not isinstance(version, int):
            raise WeightsError(f"{source}: says no format; was it written by vovnet export?")
        if version > FORMAT:
            raise WeightsError(f"{source}: was written by a newer vovnet; update this one")
        known = cls.__dataclass_fields__
        try:
            given: dict[str, Any] = {key: values[key] for key in values if key in known}
            given |= {
                "input": InputSpec.from_dict(given["input"]),
                "names": tuple(map(str, given["names"])),
                "files": dict(given["files"]),
            }
            sidecar = cls(**given)
        except (KeyError, TypeError, ValueError, AttributeError, VovnetError) as error:
            raise WeightsError(f"{source}: is damaged ({error}); export the model again") from None
        if not sidecar.files or not sidecar.names:
            raise WeightsError(f"{source}: names no file or no class; export the model again")
        return sidecar


def read_sidecar(folder: Path) -> Sidecar:
    """The sidecar of an exported folder, whose files are those that it was written for.

    Raises `WeightsError` if one is missing or another than was exported.
    """
    path = folder / SIDECAR
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise WeightsError(f"{path}: is no JSON ({error}); export the model again") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: holds no object; export the model again")
    sidecar = Sidecar.from_dict(values, str(path))
    for name, known in sidecar.files.items():
        file = folder / name
        if os.path.basename(name) != name or not file.is_file():
            raise WeightsError(f"{file}: is missing; copy the whole folder, or export it again")
        if file_hash(file) != known:
            raise WeightsError(
                f"{file}: is not the file that {SIDECAR} was written for; export it again"
            )
    return sidecar


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write it beside the model's files."""
    text = json.dumps(sidecar.to_dict(), indent=1, ensure_ascii=False)
    write_atomically(folder / SIDECAR, text.encode())


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
