"""A training run's values, from a YAML recipe and the command line; plain data, no objects."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml

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
    names: tuple[str, ...] = ()  # class names; empty = those of the first dataset
    val: str | None = None  # dataset to evaluate on, PATH or PATH@SPLIT
    val_every: int = 0  # epochs between evaluations; 0 = only at the end
    amp: Literal["auto", "bf16", "off"] = "auto"  # auto: bf16 where the processor has it
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "batch": self.batch, "lr": self.lr, "clip": self.clip}
        for key, value in positive.items():
            if not value > 0:
                raise VovnetError(f"recipe: {key} is {value}; it must be above 0")
        if not self.data:
            raise VovnetError("recipe: data is empty; name a dataset with --data")

    def size_at(self, epoch: int, final: int) -> int:
        """Input side in pixels for an epoch (0-based), given the full size."""
        share = epoch / self.epochs
        return next((side for until, side in self.resolution if share < until), final)

    def mosaic_at(self, epoch: int) -> float:
        """Probability that a sample of this epoch is a mosaic."""
        probability, start, end = self.mosaic
        return probability if start <= epoch / self.epochs < end else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for YAML and JSON."""
        return {k: _plain(v) for k, v in asdict(self).items()}


# What suits a model where neither recipe nor command line says otherwise.
_SSD_STYLE = {"augment": "ssd", "batch": 8, "resolution": (), "lr": 4e-3}
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {"dsod300-vovnet27_slim": _SSD_STYLE}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values; an unknown key raises `UnknownNameError` with a suggestion."""
    known = {f.name for f in fields(Recipe)}
    for key in values:
        if key not in known:
            raise UnknownNameError("recipe key", key, sorted(known))
    missing = [key for key in ("model", "data") if key not in values]
    if missing:
        raise VovnetError(f"recipe: {' and '.join(missing)} not given; add --{missing[0]}")
    values = MODEL_DEFAULTS.get(values["model"], {}) | {k: _frozen(v) for k, v in values.items()}
    if isinstance(values["data"], str):
        values["data"] = (values["data"],)
    try:
        return replace(Recipe(values["model"], values["data"]), **values)
    except TypeError as error:
        raise VovnetError(f"recipe: a value has the wrong type: {error}") from None


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a YAML recipe; raises `VovnetError` naming the file if it is not a mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VovnetError(f"{path}: {error.strerror}; give an existing recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise VovnetError(f"{path}: not a YAML recipe: {detail}") from None
    if not isinstance(values, dict):
        raise VovnetError(f"{path}: a recipe is a list of `key: value` lines")
    return values
