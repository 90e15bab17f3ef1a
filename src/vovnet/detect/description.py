"""The description of another project's ONNX detector: a JSON file beside it, read strictly.

    {"input": {"height": 416, "width": 416, "fit": "letterbox", "place": "top left", "pad": 114,
               "channels": "bgr", "scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]},
     "layout": "yolox", "names": ["person", ...], "licence": "Apache-2.0"}

The network gets (pixel · scale − mean) / std, `mean` and `std` in the order of `channels`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from vovnet.detect.layouts import LAYOUTS, Background
from vovnet.errors import UnknownNameError, VovnetError, WeightsError
from vovnet.input_spec import InputSpec

_LARGEST = 2**20  # bytes; a description is short
_INPUT = ("height", "width", "fit", "place", "pad", "channels", "scale", "mean", "std")
_KEYS = ("input", "layout", "names", "background", "licence")


@dataclass(frozen=True)
class Description:
    """What a file does not say of itself: its input, the layout of its outputs, the class names.

    `source` is the file that says so, for messages. `background` is where the background stands
    among the file's classes, whose names leave it out.
    """

    input: InputSpec
    layout: str
    names: tuple[str, ...]
    background: Background
    licence: str | None = None
    source: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> "Description":
        """Raises `WeightsError`, which names `source`, the field and the mend."""
        _known(values, _KEYS, source, "")
        layout = _get(values, "layout", source)
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise WeightsError(f"{source}: layout: {UnknownNameError('layout', layout, LAYOUTS)}")
        names = _get(values, "names", source)
        texts = isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names)
        if not (texts and names and len(set(names)) == len(names)):
            raise WeightsError(f"{source}: names: must be a list of texts, no two alike; mend it")
        background = values.get("background", LAYOUTS[layout].background)
        if background not in ("none", "first", "last"):
            raise WeightsError(
                f"{source}: background: {background!r} must be none, first or last; mend it"
            )
        licence = values.get("licence")
        if not isinstance(licence, str | None):
            raise WeightsError(f"{source}: licence: must be a text; mend it or leave it out")
        spec = _input(_get(values, "input", source), source)
        return cls(spec, layout, tuple(names), background, licence, source)


def read_description(path: Path) -> Description:
    """Raises `WeightsError` for a file that cannot be read or does not describe a detector."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise WeightsError(f"{path}: is too long for a description; give another file")
        values = json.loads(text)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is no JSON ({error}); see vovnet describe") from None
    return Description.from_dict(values, str(path))


def described(path: Path) -> bool:
    """Whether a description lies beside an ONNX file; any other JSON there is none."""
    try:
        values = json.loads(path.with_suffix(".json").read_bytes()[:_LARGEST])
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and "layout" in values


def _input(values: Any, source: str) -> InputSpec:
    _known(values, _INPUT, source, "input.")
    scale = values.get("scale", 1)
    if not (_is_number(scale) and scale > 0):
        raise WeightsError(f"{source}: input.scale: {scale!r} must be a number above 0; mend it")
    mean, std = (
        _triple(values.get(key, usual), key, source)
        for key, usual in (("mean", [0, 0, 0]), ("std", [1, 1, 1]))
    )
    channels = values.get("channels", "rgb")
    # InputSpec has them in the order of RGB and in units of a pixel.
    turn = -1 if channels == "bgr" else 1
    try:
        return InputSpec(
            (_get(values, "height", source, "input."), _get(values, "width", source, "input.")),
            values.get("fit", "letterbox"),
            tuple(value / scale for value in mean[::turn]),
            tuple(value / scale for value in std[::turn]),
            pad=values.get("pad", 114),
            place=values.get("place", "centre"),
            channels=channels,
        )
    except VovnetError as error:
        raise WeightsError(f"{source}: {error}; mend it") from None


def _known(values: Any, keys: tuple[str, ...], source: str, where: str) -> None:
    if not isinstance(values, dict):
        what = where.removesuffix(".") or "the file"
        raise WeightsError(f"{source}: {what}: must be an object {{...}}; see vovnet describe")
    for key in values:
        if key not in keys:
            raise WeightsError(f"{source}: {UnknownNameError('field', f'{where}{key}', keys)}")


def _get(values: Mapping[str, Any], key: str, source: str, where: str = "") -> Any:
    if key not in values:
        raise WeightsError(f"{source}: {where}{key}: is missing; add it")
    return values[key]


def _triple(values: Any, key: str, source: str) -> tuple[float, float, float]:
    if not (isinstance(values, list) and len(values) == 3 and all(map(_is_number, values))):
        raise WeightsError(f"{source}: input.{key}: must be three finite numbers; mend it")
    return values[0], values[1], values[2]


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and isfinite(value)
