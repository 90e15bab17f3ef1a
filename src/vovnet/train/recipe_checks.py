"""What a recipe's values must be: types, ranges, and what goes with what."""

import math
from itertools import pairwise
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from vovnet.errors import UnknownNameError, VovnetError

# How a field's type is called to somebody who writes YAML.
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    int | None: "a whole number or null",
    float | None: "a number or null",
    str | None: "text or null",
    tuple[str, ...]: "a list of texts",
    tuple[float, ...]: "a list of numbers",
    tuple[float, float]: "a list of two numbers",
    tuple[float, float, float]: "a list of three numbers",
    tuple[tuple[float, int], ...]: "a list of [share of the run, side in pixels]",
}
_AT_LEAST = {
    "epochs": 1,
    "steps": 1,
    "batch": 1,
    "accumulate": 1,
    "imgsz": 1,
    "warmup": 0,
    "val_every": 0,
    "patience": 0,
    "workers": 0,
    "threads": 1,
    "regions": 4,
    "weight_decay": 0,
    "aspect": 0,
    "clip": 0,
}
_ABOVE_0 = ("lr", "gamma", "minutes", "save_minutes")
_SHARES = (
    *("final_lr", "ema_decay", "momentum", "flip", "vertical_flip", "mosaic", "mixup", "balance"),
    *("milestones", "teacher_conf"),
)


def check_recipe(recipe: Any, kinds: dict[str, Any]) -> None:
    """Raise `VovnetError` for a value of a wrong type or out of range, and for values that do not
    go together. `kinds` are the types of the fields."""
    _check_types(recipe, kinds)
    _check_ranges(recipe)
    _check_resolution(recipe.resolution)
    _check_together(recipe)


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


def _check_types(recipe: Any, kinds: dict[str, Any]) -> None:
    for key, kind in kinds.items():
        value = recipe.__dict__[key]
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise UnknownNameError(f"recipe {key}", str(value), get_args(kind))
        elif not _fits(value, kind):
            raise VovnetError(f"recipe: {key} is {plain(value)!r}; it must be {_WORDS[kind]}")


def _check_ranges(recipe: Any) -> None:
    values = recipe.__dict__
    rules = [(key, f"at least {least}", least, math.inf) for key, least in _AT_LEAST.items()]
    rules += [(key, "above 0", math.ulp(0.0), math.inf) for key in _ABOVE_0]
    rules += [(key, "within 0..1", 0, 1) for key in _SHARES]
    rules += [("seed", "within 0..2^63", 0, 2**63)]
    for key, words, low, high in rules:
        value = values[key]
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(low <= number <= high for number in numbers):
            raise VovnetError(f"recipe: {key} is {plain(value)}; it must be {words}")
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
            f"recipe: resolution is {plain(steps)}; shares (0..1) and sides must both grow"
        )
    if odd := [side for side in sides if side % 32]:
        raise VovnetError(f"recipe: resolution has side {odd[0]}; it must be a multiple of 32")


def _check_together(recipe: Any) -> None:
    if not recipe.data:
        raise VovnetError("recipe: data is empty; name a dataset with --data")
    if recipe.unlabelled and recipe.teacher is None:
        raise VovnetError("recipe: unlabelled pictures need somebody who knows them; give teacher")
    if recipe.teacher is not None and recipe.cache == "device":
        raise VovnetError("recipe: cache device carries no teacher's objects; give --cache ram")
    if len(set(recipe.names)) < len(recipe.names):
        raise VovnetError("recipe: names holds a class twice; leave one out")
    lengths = [key for key in ("epochs", "steps", "minutes") if recipe.__dict__[key] is not None]
    if len(lengths) > 1:
        raise VovnetError(f"recipe: {' and '.join(lengths)} are both given; keep one of them")
    if recipe.batch is not None and recipe.batch % (recipe.accumulate or 1):
        raise VovnetError(
            f"recipe: batch {recipe.batch} cannot be computed in {recipe.accumulate} equal parts; "
            "make batch a multiple of accumulate"
        )
    if recipe.schedule == "multistep" and not recipe.milestones:
        raise VovnetError("recipe: multistep needs milestones, shares of the run such as [0.5]")
    if recipe.schedule == "cosine" and recipe.milestones:
        raise VovnetError("recipe: milestones belong to schedule multistep; leave one out")
    if sorted(set(recipe.milestones)) != list(recipe.milestones):
        raise VovnetError(f"recipe: milestones {plain(recipe.milestones)} must grow")
    if recipe.graphs and recipe.compile:
        raise VovnetError("recipe: graphs and compile both take over the network; keep one of them")
    if recipe.patience and (recipe.val == "none" or recipe.val_every == 0):
        raise VovnetError("recipe: patience needs evaluations; give val, and leave val_every out")


def plain(value: Any) -> Any:
    """Tuples as lists, for YAML and JSON."""
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def frozen(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(frozen(v) for v in value) if isinstance(value, list) else value
