"""A training run's values, from a YAML recipe and the command line; plain data, no objects."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vovnet.data.yaml_file import read_yaml
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.train.recipe_checks import check_recipe, frozen, plain
from vovnet.train.schedule import learning_rate, rate_by_clock

NO_VALIDATION = "none"
_EVALUATIONS = 10  # of a run, where the recipe does not say how many epochs lie between them


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. Shares of the run are numbers in 0..1.

    What is None is chosen when the run starts, by the model's family, the number of images and
    the machine (`train.defaults`), and written into the run's config.yaml.
    """

    model: str
    data: tuple[str, ...]  # dataset folders or files, each PATH or PATH@SPLIT
    names: tuple[str, ...] = ()  # class names; empty = those of the first dataset
    val: str | None = None  # to evaluate on, PATH or PATH@SPLIT; none = nothing; None = its own val
    val_every: int | None = (
        None  # epochs between evaluations; 0 = only at the end; None = ten a run
    )
    allow_overlap: bool = False  # evaluate on images that are trained on, too
    metric: str = "map_50_95"  # which figure of an evaluation decides about best.safetensors
    patience: int = 0  # stop after so many evaluations without a better one; 0 = never

    weights: str | None = None  # start from these: a shipped name, a file or a run's folder
    teacher: str | None = None  # a detector whose finds are learned beside the labels
    teacher_conf: float = 0.3  # the least score of what it teaches
    unlabelled: tuple[str, ...] = ()  # folders of pictures that it alone tells of
    freeze: tuple[str, ...] = ()  # parts of the network that stay as they are: backbone, ...

    # Length: at most one of the three; by none of them it follows from the number of images.
    epochs: int | None = None
    steps: int | None = None  # of the optimiser: a paper's iterations
    minutes: float | None = None  # by the clock

    batch: int | None = None  # images of one optimiser step, over all processes
    accumulate: int | None = None  # parts that they are computed in; None = as memory demands
    imgsz: int | None = None  # final input side in pixels; None = the model's own
    resolution: tuple[tuple[float, int], ...] = ()  # (share of the run, side): grow until imgsz

    optimizer: Literal["muon", "adamw", "sgd"] = "muon"
    lr: float | None = None  # after warm-up
    schedule: Literal["cosine", "multistep"] = "cosine"
    final_lr: float = 0.01  # where the cosine ends, as a share of lr
    milestones: tuple[float, ...] = ()  # shares of the run where multistep multiplies lr by gamma
    gamma: float = 0.1
    warmup: int = 200  # steps; at most a tenth of the run, by the clock ten steps at least
    momentum: float = 0.9  # of sgd
    nesterov: bool = False  # of sgd
    weight_decay: float = 0.05  # on matrices and kernels only
    clip: float = 10.0  # gradient norm; 0 = never
    ema_decay: float = 0.9995  # reached slowly: at step n at most (1+n)/(10+n); 0 = no average
    sync_bn: bool = False  # batch norms look at the images of all processes

    augment: Literal["zoom", "ssd"] = "zoom"
    zoom: tuple[float, float] = (0.45, 1.6)  # least and greatest
    aspect: float = 0.3  # greatest log ratio of the two scales
    mosaic: tuple[float, float, float] = (0.4, 0.1, 0.8)  # probability, from share, to share
    mixup: tuple[float, float, float] = (0.0, 0.1, 0.8)  # two laid over each other, likewise
    flip: float = 0.5
    vertical_flip: float = 0.0
    difficult: bool = False  # train on boxes marked difficult
    balance: float = 0.0  # images of classes that fewer than this share shows come more often
    regions: int | None = None  # of an image, in an R-CNN's second stage; None = the model's own

    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"  # auto: bf16 where it is faster
    compile: bool = False  # torch.compile the network
    graphs: bool = False  # on a GPU start the network's kernels together, as CUDA graphs
    cache: Literal["ram", "disk", "device", "off"] = "ram"  # where decoded images are kept
    workers: int | None = None  # processes that make batches
    threads: int | None = None  # that compute on a CPU; None = tried out
    save_minutes: float = 10.0  # between saved states within an epoch
    tensorboard: bool = False  # write events for it, beside results.csv
    mlflow: bool = False  # log to it, too
    wandb: bool = False  # likewise Weights & Biases
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `VovnetError` for a value that training would trip over later."""
        check_recipe(self, KINDS)

    def size_at(self, share: float, final: int) -> int:
        """Input side in pixels at a share of the run, given the full size."""
        return next((min(side, final) for until, side in self.resolution if share < until), final)

    def mosaic_at(self, share: float) -> float:
        """Probability that a sample is a mosaic at a share of the run."""
        return _between(self.mosaic, share)

    def mixup_at(self, share: float) -> float:
        """Probability that another sample is laid over one at a share of the run."""
        return _between(self.mixup, share)

    @property
    def validates(self) -> bool:
        """Whether there is something to evaluate on."""
        return self.val not in (None, NO_VALIDATION)

    def evaluates_after(self, epoch: int, before: float, share: float) -> bool:
        """Whether an epoch, counted from 0, is followed by an evaluation; the shares of the run are
        those done before and after it."""
        if not self.validates:
            return False
        if self.val_every is None:
            return share >= 1 or int(share * _EVALUATIONS) > int(before * _EVALUATIONS)
        return share >= 1 or (self.val_every > 0 and (epoch + 1) % self.val_every == 0)

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of a step, counted from 0, in a run of `total` steps; settled recipes
        only."""
        assert self.lr is not None
        return learning_rate(
            step,
            total,
            peak=self.lr,
            warmup=self.warmup,
            final=self.final_lr,
            milestones=self.milestones,
            gamma=self.gamma,
        )

    def lr_by_clock(self, share: float, warmed: float) -> float:
        """Learning rate after a share of the time, warmed up so far; settled recipes only."""
        assert self.lr is not None
        return rate_by_clock(
            share,
            warmed,
            peak=self.lr,
            final=self.final_lr,
            milestones=self.milestones,
            gamma=self.gamma,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for YAML and JSON."""
        return {k: plain(v) for k, v in asdict(self).items()}


def _between(when: tuple[float, float, float], share: float) -> float:
    probability, start, end = when
    return probability if start <= share < end else 0.0


LENGTHS = ("epochs", "steps", "minutes")
# What a run that goes on may have otherwise than it began: how long it is, and how it uses the
# machine. (With another `accumulate` batch norms, and they alone, see other parts; `cache` device
# and other `threads` round otherwise.)
CHANGEABLE = (
    *LENGTHS,
    *("accumulate", "workers", "threads", "cache", "graphs", "save_minutes"),
    *("tensorboard", "mlflow", "wandb"),
)
KINDS: dict[str, Any] = {field.name: field.type for field in fields(Recipe)}

# What suits a model where neither recipe nor command line says otherwise.
_SSD_STYLE = {"augment": "ssd"}
_SSD_FAMILIES = (
    *("dsod300", "dsod300_plain", "ssd300", "pelee304"),
    *("refinedet320", "refinedet512"),
)
_REGION_STYLE = {"mosaic": (0.0, 0.0, 0.0)}
_REGION_FAMILIES = (
    *("fasterrcnn", "fasterrcnn_lite", "maskrcnn", "maskrcnn_lite"),
    *("centermask", "centermask_lite"),
)
FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_SSD_FAMILIES, _SSD_STYLE),
    **dict.fromkeys(_REGION_FAMILIES, _REGION_STYLE),
}
# Images of a step and learning rate (of Muon) where the recipe leaves them.
_STEP: dict[str, tuple[int, float]] = {
    **dict.fromkeys(_SSD_FAMILIES, (8, 4e-3)),
    **dict.fromkeys(_REGION_FAMILIES, (4, 2e-3)),
}


def family_of(model: str) -> str:
    """The family in a detector's name FAMILY-BACKBONE."""
    return model.partition("-")[0]


# What other optimisers want of Muon's rate.
_OF_MUONS_RATE = {"muon": 1.0, "adamw": 1 / 3, "sgd": 2.0}


def usual_step(model: str, optimizer: str) -> tuple[int, float]:
    """Images of a step and learning rate that suit a model and an optimiser."""
    batch, rate = _STEP.get(family_of(model), (16, 6e-3))
    return batch, rate * _OF_MUONS_RATE[optimizer]


def _meant(key: str, value: Any) -> Any:
    """A field's value from YAML's or the command line's, where YAML 1.1 reads it otherwise."""
    if key in ("data", "freeze", "unlabelled") and isinstance(value, str):
        return (value,)
    if key in ("amp", "cache") and value is False:  # `amp: off` without quotes
        return "off"
    if KINDS[key] in (float, float | None) and isinstance(value, str):  # 6e-3 without a point
        try:
            return float(value)
        except ValueError:
            return value
    return frozen(value)


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values; an unknown key raises `UnknownNameError` with a suggestion."""
    for key in values:
        if key not in KINDS:
            raise UnknownNameError("recipe key", str(key), sorted(KINDS))
    missing = [key for key in ("model", "data") if key not in values]
    if missing:
        raise VovnetError(f"recipe: {' and '.join(missing)} not given; add --{missing[0]}")
    given = {key: _meant(key, value) for key, value in values.items()}
    family = family_of(str(given["model"]))
    return Recipe(**FAMILY_DEFAULTS.get(family, {}) | given)


def changed(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with the given ones in their place; a length replaces any other one."""
    if any(key in given for key in LENGTHS):
        values = {key: value for key, value in values.items() if key not in LENGTHS}
    return values | given


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a YAML recipe; raises `VovnetError` naming the file if it is not a mapping."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise VovnetError(f"{path}: a recipe is a list of `key: value` lines")
    return values
