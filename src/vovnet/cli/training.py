"""Verbs around a dataset: train and val."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vovnet.cli._folder import shared_run_folder
from vovnet.cli._options import DEFAULT_WEIGHTS, Choice, Json, Many
from vovnet.cli._pages import Pages
from vovnet.cli._print import note, print_json, print_table, progress
from vovnet.errors import EXIT_OK, DataError, VovnetError

if TYPE_CHECKING:
    from vovnet.data.record import Dataset
    from vovnet.train.recipe import Recipe


FROM_SCRATCH = "none"


@Parameter(name="*")
@dataclass(frozen=True)
class RecipeOptions:
    """Values of a recipe that have an option of their own; None where it was not given."""

    data: Annotated[list[str] | None, Many] = None
    """Datasets, each PATH or PATH@SPLIT. The first one's classes rule: of the others, objects of
    the same classes are taken (COCO's and VOC's words count as the same), the rest left out."""
    model: str | None = None
    """A detector, as `vovnet models` lists them (default: that of the weights, or vovdet_nano)."""
    weights: str | None = None
    """Start from these, a shipped or fetched name, a .safetensors file or a run's folder, whatever
    classes; none: from scratch (default: with --model or --config none, else vovdet_nano.voc)."""
    teacher: str | None = None
    """Learn what this detector finds beside the labels, the surer it is the more: weights as
    --weights of predict takes them, another project's .onnx with its description beside it."""
    unlabelled: Annotated[list[str] | None, Many] = None
    """Folders of pictures without labels, of which the teacher alone tells."""
    freeze: Annotated[list[str] | None, Many] = None
    """Parts of the network that stay as they are, such as backbone or backbone.stem."""
    val: str | None = None
    """Dataset to evaluate on, PATH or PATH@SPLIT, or none (default: the validation split that the
    first dataset has)."""
    val_every: int | None = None
    """Evaluate every so many epochs; 0: only at the end (default: ten times in a run)."""
    allow_overlap: bool | None = None
    """Evaluate even on images that are trained on."""
    patience: int | None = None
    """Stop after so many evaluations that bring nothing better."""
    epochs: int | None = None
    """Passes over the data (default: by the number of images)."""
    minutes: float | None = None
    """Train for so long by the clock, instead of so many epochs."""
    batch: int | None = None
    """Images of one step, over all processes (default: by model, images and processes)."""
    accumulate: int | None = None
    """Compute a step in so many parts (default: as the free memory demands)."""
    imgsz: int | None = None
    """Input side in pixels at the end of training (a recipe may start smaller)."""
    lr: float | None = None
    """Learning rate after the warm-up (default: by model and optimiser)."""
    workers: int | None = None
    """Processes that make batches (default: by the machine)."""
    cache: Literal["ram", "disk", "device", "off"] | None = None
    """Where decoded images are kept; device: augmented there too."""
    amp: Literal["auto", "bf16", "fp16", "off"] | None = None
    """Lower precision; auto takes bf16 where it is faster, which is tried out."""
    sync_bn: bool | None = None
    """Batch norms look at the images of all processes."""
    seed: int | None = None
    """Of everything that is drawn."""


def train(
    *,
    options: RecipeOptions | None = None,
    config: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True)] = None,
    device: str = "cpu",
    name: str | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Train a detector on a VOC, COCO or YOLO dataset.

    Started by `torchrun`, its processes train together, on one machine or on several.

    Parameters
    ----------
    config
        A YAML recipe; the other options win over it.
    set_
        Any other value of a recipe, KEY=VALUE.
    device
        What to compute on: cpu, cuda or cuda:1.
    name
        Folder below runs/train; the next free number is added if it exists.
    resume
        A run's folder: go on with it. Its length may be changed, and how it uses the machine.
    """
    from vovnet.distributed import is_main, process_group

    given = {k: v for k, v in vars(options or RecipeOptions()).items() if v is not None}
    given |= _settings(set_ or [])
    with process_group(device) as device:
        row, folder = _train(given, config, device, name, resume)
        if is_main():
            if as_json:
                print_json({"folder": str(folder), **row})
            else:
                print(folder, flush=True)  # before the remark, also where both go to one file
                note(f"next: vovnet predict IMAGE --weights {shlex.quote(str(folder))}")
    return EXIT_OK


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`["lr=1e-3", "freeze=[backbone]"]` as values; they are written as in YAML."""
    from vovnet.data.yaml_file import parse_yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        try:
            line = parse_yaml(f"{key}: {text}", f"--set {pair}") if equals and key else None
        except DataError:
            line = None
        if not isinstance(line, dict):
            raise VovnetError(f"--set {pair}: write KEY=VALUE, a recipe's key and a YAML value")
        values |= line
    return values


def _train(
    given: dict[str, Any], config: Path | None, device: str, name: str | None, resume: Path | None
) -> tuple[dict[str, Any], Path]:
    from vovnet.distributed import broadcast_object, is_main
    from vovnet.train.console import train_in_console
    from vovnet.train.recipe import CHANGEABLE, Recipe, changed, recipe_from_dict
    from vovnet.train.run import load_run

    recipe: Recipe | None = None
    if resume is not None:
        if set(given) - {*CHANGEABLE} or config or name:
            raise VovnetError(
                "--resume takes the run's own recipe; only these may be changed: "
                + ", ".join(CHANGEABLE)
            )
        if is_main():
            recipe = recipe_from_dict(changed(load_run(resume).to_dict(), given))
    else:
        recipe = recipe_of(given, config)
        name = name or recipe.model
    with shared_run_folder("train", name or "", resume) as (folder, again):
        if again and resume is None and is_main():
            recipe = load_run(folder)  # as it was settled when the run began
        recipe = broadcast_object(recipe)
        assert recipe is not None
        try:
            row = train_in_console(recipe, folder, resume=again, device=device)
        except KeyboardInterrupt:
            if is_main() and (folder / "state.safetensors").is_file():
                note(f"saved; go on with: vovnet train --resume {folder}")
            raise
    return row, folder


def recipe_of(given: dict[str, Any], config: Path | None) -> "Recipe":
    """The recipe of a file, if there is one, with the given values in the place of its own."""
    from vovnet.train.recipe import changed, read_recipe, recipe_from_dict

    values = changed(read_recipe(config) if config else {}, given)
    if not config and "model" not in values:
        values = {"weights": DEFAULT_WEIGHTS} | values
    if values.get("weights") == FROM_SCRATCH:
        del values["weights"]
    if "model" not in values:
        values["model"] = _model_of(values.get("weights"))
    return recipe_from_dict(values)


def _model_of(weights: str | None) -> str:
    from vovnet.models.weights import load_metadata
    from vovnet.shipped import weights_path

    if weights is None:
        return "vovdet_nano"
    facts = load_metadata(weights_path(weights))
    if "num_classes" in facts:
        backbone = facts.get("model")
        raise VovnetError(f"{weights}: a backbone's; give --model FAMILY-{backbone} too")
    return str(facts.get("model"))


def val(
    data: str,
    *,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    split: str | None = None,
    batch: int = 8,
    conf: float | None = None,
    iou: float | None = None,
    drop_unknown: bool = False,
    pages: Pages = Pages(),  # noqa: B008  # frozen
    as_json: Json = False,
) -> int:
    """Measure a detector's accuracy: COCO AP, VOC 11-point and area AP.

    Started by `torchrun`, its processes share the images.

    Parameters
    ----------
    data
        A VOC, COCO or YOLO dataset, PATH or PATH@SPLIT.
    split
        Which split (default: val, else test).
    conf
        Least score that is measured (default: 0.001; AP is an area over all scores).
    iou
        Overlap above which the weaker of two boxes of a class is dropped (default: 0.6).
    drop_unknown
        Leave out objects of classes that the model does not know, instead of refusing them.
    """
    from vovnet.detect.options import Options
    from vovnet.evaluate.run import EVAL_CONF, EVAL_IOU

    if batch < 1:
        raise VovnetError(f"--batch {batch}: must be at least 1")
    kept = Options(EVAL_CONF if conf is None else conf, EVAL_IOU if iou is None else iou)
    pages.check()
    choice = choice.resolved()
    found: list[Any] = []
    how = {"batch": batch, "conf": kept.conf, "iou": kept.iou, "on_found": found.extend}
    measure = _val_together if int(os.environ.get("WORLD_SIZE", "1")) > 1 else _val_alone
    metrics, dataset = measure(choice, data, split, drop_unknown, how)
    if metrics is None:  # another process tells it
        return EXIT_OK
    metrics |= {"weights": choice.weights, "conf": kept.conf, "iou": kept.iou}
    if kept.conf > EVAL_CONF:
        note(f"AP at --conf {kept.conf:g}: what scores less is missing, so it is no one else's AP")
    if as_json:
        print_json(metrics)
    else:
        _print_metrics(dict(metrics))
    if pages:
        pages.of_found(found, dataset, metrics)
    return EXIT_OK


def _val_alone(
    choice: Choice, data: str, split: str | None, drop_unknown: bool, how: dict[str, Any]
) -> tuple[dict[str, Any] | None, "Dataset"]:
    from vovnet.evaluate.run import evaluate

    detector = choice.load()
    dataset = _truth(data, split, detector, drop_unknown)
    for line in _findings(dataset):
        note(line)
    with progress("images", len(dataset)) as advance:
        metrics = evaluate(detector, dataset, on_images=advance, **how)
    return metrics | _told(detector, dataset), dataset


def _val_together(
    choice: Choice, data: str, split: str | None, drop_unknown: bool, how: dict[str, Any]
) -> tuple[dict[str, Any] | None, "Dataset"]:
    """Under torchrun: all processes share the images, and the main one has the figures."""
    from vovnet.distributed import is_main, process_group, world_size
    from vovnet.evaluate.together import evaluate_together

    with process_group(choice.device or "cpu") as device:
        detector = replace(choice, device=device, runtime=choice.runtime or "eager").load()
        dataset = _truth(data, split, detector, drop_unknown)
        main = is_main()
        for line in _findings(dataset) if main else ():
            note(line)
        with progress("images", len(dataset) // world_size(), shown=main) as advance:
            metrics = evaluate_together(detector, dataset, on_images=advance, **how)
    return metrics | _told(detector, dataset) if main else None, dataset


def _truth(data: str, split: str | None, detector: Any, drop_unknown: bool) -> "Dataset":
    from vovnet.data.open import open_dataset, parse_source

    path, given = parse_source(data)
    return open_dataset(
        path, split or given, detector.names, drop_unknown=drop_unknown, purpose="val"
    )


def _findings(dataset: "Dataset") -> list[str]:
    from vovnet.data.finding import finding_lines

    return list(finding_lines(dataset.findings))


def _told(detector: Any, dataset: "Dataset") -> dict[str, Any]:
    return {
        "split": dataset.split,
        "problems": len([f for f in dataset.findings if f.action]),
        "runtime": detector.runtime,
        "precision": detector.precision,
    }


def _print_metrics(metrics: dict[str, Any]) -> None:
    classes = metrics.pop("per_class")
    for key, value in metrics.items():
        print(f"{key:<12} {f'{value:.4f}' if isinstance(value, float) else value}")
    print_table([{"class": name, **values} for name, values in classes.items()])
