"""A training run's values, from a YAML recipe and the command line; plain data, no objects."""

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from vovnet.data.yaml_file import read_yaml
from vovnet.errors import UnknownNameError, VovnetError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. Shares of the run are numbers in 0..1."""

    model: str
    data: tuple[str, ...]  # dataset folders or files, each PATH or PATH@SPLIT
    epochs: int = 40
    batch: int = 16
    imgsz: int | None = None  # final input side in pixels; None = the model's own
    resolution: tuple[tuple[float, int], ...] = ()  # (share of the run, side): grow until imgsz
    optimizer: Literal["muon", "adamw"] = "muon"
    lr: float = 6e-3  # after warm-up; cosine down to lr·final_lr (AdamW wants about 2e-3)
    final_lr: float = 0.01
    warmup: int = 200  # steps
    weight_decay: float = 0.05  # on matrices and kernels only
    clip: float = 10.0  # gradient norm
    ema_decay: float = 0.9995  # reached slowly: at step n at most (1+n)/(10+n)
    augment: Literal["zoom", "ssd"] = "zoom"
    zoom: tuple[float, float] = (0.45, 1.6)  # least and greatest
    aspect: float = 0.3  # greatest log ratio of the two scales
    mosaic: tuple[float, float, float] = (0.4, 0.1, 0.8)  # probability, from share, to share
    flip: float = 0.5
    vertical_flip: float = 0.0
    difficult: bool = False  # train on boxes marked difficult
    regions: int | None = None  # of an image, in an R-CNN's second stage; None = the model's own
    names: tuple[str, ...] = ()  # class names; empty = those of the first dataset
    val: str | None = None  # dataset to evaluate on, PATH or PATH@SPLIT
    val_every: int = 0  # epochs between evaluations; 0 = only at the end
    amp: Literal["auto", "bf16", "off"] = "auto"  # auto: bf16 where it is faster
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `VovnetError` for a value that training would trip over later."""
        _check_types(self)
        _check_ranges(self)
        _check_resolution(self.resolution)
        if not self.data:
            raise VovnetError("recipe: data is empty; name a dataset with --data")
        if len(set(self.names)) < len(self.names):
            raise VovnetError("recipe: names holds a class twice; leave one out")

    def size_at(self, epoch: int, final: int) -> int:
        """Input side in pixels for an epoch (0-based), given the full size."""
        share = epoch / self.epochs
        return next((min(side, final) for until, side in self.resolution if share < until), final)

    def mosaic_at(self, epoch: int) -> float:
        """Probability that a sample of this epoch is a mosaic."""
        probability, start, end = self.mosaic
        return probability if start <= epoch / self.epochs < end else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for YAML and JSON."""
        return {k: _plain(v) for k, v in asdict(self).items()}


_KINDS: dict[str, Any] = {field.name: field.type for field in fields(Recipe)}

# What suits a model where neither recipe nor command line says otherwise.
_SSD_STYLE = {"augment": "ssd", "batch": 8, "resolution": (), "lr": 4e-3}
_SSD_FAMILIES = (
    *("dsod300", "dsod300_plain", "ssd300", "pelee304"),
    *("refinedet320", "refinedet512"),
)
_REGION_STYLE = {"batch": 4, "lr": 2e-3, "mosaic": (0.0, 0.0, 0.0), "resolution": ()}
_REGION_FAMILIES = (
    *("fasterrcnn", "fasterrcnn_lite", "maskrcnn", "maskrcnn_lite"),
    *("centermask", "centermask_lite"),
)
FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_SSD_FAMILIES, _SSD_STYLE),
    **dict.fromkeys(_REGION_FAMILIES, _REGION_STYLE),
}


# How a field's type is called to somebody who writes YAML.
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    int | None: "a whole number or null",
    str | None: "text or null",
    tuple[str, ...]: "a list of texts",
    tuple[float, float]: "a list of two numbers",
    tuple[float, float, float]: "a list of three numbers",
    tuple[tuple[float, int], ...]: "a list of [share of the run, side in pixels]",
}
_AT_LEAST = {
    "epochs": 1,
    "batch": 1,
    "imgsz": 1,
    "warmup": 0,
    "val_every": 0,
    "workers": 0,
    "regions": 4,
}
_AT_LEAST_0 = ("weight_decay", "aspect")
_ABOVE_0 = ("lr", "clip")
_SHARES = ("final_lr", "ema_decay", "flip", "vertical_flip", "mosaic")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; numbers must be finite, a whole one is a float too."""
    if get_origin(kind) is UnionType:
        return any(_fits(value, choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(v, kinds[0]) for v in value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if isinstance(value, bool) and kind is not bool:
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _check_types(recipe: Recipe) -> None:
    for key, kind in _KINDS.items():
        value = recipe.__dict__[key]
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise UnknownNameError(f"recipe {key}", str(value), get_args(kind))
        elif not _fits(value, kind):
            raise VovnetError(f"recipe: {key} is {_plain(value)!r}; it must be {_WORDS[kind]}")


def _check_ranges(recipe: Recipe) -> None:
    values = recipe.__dict__
    rules = [(key, f"at least {least}", least, math.inf) for key, least in _AT_LEAST.items()]
    rules += [(key, "above 0", math.ulp(0.0), math.inf) for key in _ABOVE_0]
    rules += [(key, "within 0..1", 0, 1) for key in _SHARES]
    rules += [(key, "at least 0", 0, math.inf) for key in _AT_LEAST_0]
    rules += [("seed", "within 0..2^63", 0, 2**63)]
    for key, words, low, high in rules:
        value = values[key]
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(low <= number <= high for number in numbers):
            raise VovnetError(f"recipe: {key} is {_plain(value)}; it must be {words}")
    low, high = recipe.zoom
    if not 0 < low <= high <= 100:
        raise VovnetError(
            f"recipe: zoom is [{low}, {high}]; it must be above 0, at most 100, and rising"
        )


def _check_resolution(steps: tuple[tuple[float, int], ...]) -> None:
    shares, sides = [0.0, *(share for share, _ in steps)], [0, *(side for _, side in steps)]
    growing = all(a < b for row in (shares, sides) for a, b in pairwise(row))
    if not growing or shares[-1] > 1:
        raise VovnetError(
            f"recipe: resolution is {_plain(steps)}; shares (0..1) and sides must both grow"
        )
    if odd := [side for side in sides if side % 32]:
        raise VovnetError(f"recipe: resolution has side {odd[0]}; it must be a multiple of 32")


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _meant(key: str, value: Any) -> Any:
    """A field's value from YAML's or the command line's, where YAML 1.1 reads it otherwise."""
    if key == "data" and isinstance(value, str):
        return (value,)
    if key == "amp" and value is False:  # `amp: off` without quotes
        return "off"
    if _KINDS[key] is float and isinstance(value, str):  # 6e-3 without a point
        try:
            return float(value)
        except ValueError:
            return value
    return _frozen(value)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values; an unknown key raises `UnknownNameError` with a suggestion."""
    for key in values:
        if key not in _KINDS:
            raise UnknownNameError("recipe key", str(key), sorted(_KINDS))
    missing = [key for key in ("model", "data") if key not in values]
    if missing:
        raise VovnetError(f"recipe: {' and '.join(missing)} not given; add --{missing[0]}")
    given = {key: _meant(key, value) for key, value in values.items()}
    family = str(given["model"]).partition("-")[0]
    return Recipe(**FAMILY_DEFAULTS.get(family, {}) | given)


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a YAML recipe; raises `VovnetError` naming the file if it is not a mapping."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise VovnetError(f"{path}: a recipe is a list of `key: value` lines")
    return values
