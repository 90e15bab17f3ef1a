"""Verbs around a dataset: train and val."""

from pathlib import Path
from typing import Annotated, Any, Literal

from vovnet.cli._folder import run_folder
from vovnet.cli._options import DEFAULT_WEIGHTS, Json, Many, load_weights
from vovnet.cli._print import note, print_json, print_table, progress
from vovnet.errors import EXIT_OK, VovnetError


def train(
    *,
    data: Annotated[list[str] | None, Many] = None,
    model: str | None = None,
    config: Path | None = None,
    val: str | None = None,
    val_every: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    imgsz: int | None = None,
    lr: float | None = None,
    workers: int | None = None,
    seed: int | None = None,
    amp: Literal["auto", "bf16", "off"] | None = None,
    device: str = "cpu",
    name: str | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Train a detector on a VOC, COCO or YOLO dataset.

    Parameters
    ----------
    data
        Datasets, each PATH or PATH@SPLIT. The first one's classes rule: of the others, objects of
        the same classes are taken (COCO's and VOC's words count as the same), the rest left out.
    model
        A detector, as `vovnet models` lists them (default: vovdet_nano).
    config
        A YAML recipe; the other options win over it.
    val
        Dataset to evaluate on at the end, PATH or PATH@SPLIT.
    val_every
        Evaluate every so many epochs too.
    imgsz
        Input side in pixels at the end of training (a recipe may start smaller).
    amp
        bf16 autocast; auto takes it where it is faster, which is tried out.
    name
        Folder below runs/train; the next free number is added if it exists.
    resume
        A run's folder: go on with it. Only --epochs may be changed.
    """
    from vovnet.train.console import train_in_console
    from vovnet.train.recipe import read_recipe, recipe_from_dict
    from vovnet.train.run import load_run, with_overrides

    given = {
        "data": data, "model": model, "val": val, "val_every": val_every, "epochs": epochs,
        "batch": batch, "imgsz": imgsz, "lr": lr, "workers": workers, "seed": seed, "amp": amp,
    }  # fmt: skip
    given = {k: v for k, v in given.items() if v is not None}
    if resume is not None:
        if set(given) - {"epochs"} or config or name:
            raise VovnetError("--resume takes the run's own recipe; only --epochs may be changed")
        recipe, known = with_overrides(load_run(resume), epochs=epochs), resume
    else:
        values = {"model": "vovdet_nano"} | (read_recipe(config) if config else {}) | given
        recipe = recipe_from_dict(values)
        known = None
    with run_folder("train", name or recipe.model, known) as folder:
        row = train_in_console(recipe, folder, resume=resume is not None, device=device)
    if as_json:
        print_json({"folder": str(folder), **row})
    else:
        print(folder)
    return EXIT_OK


def val(
    *,
    data: str,
    weights: str = DEFAULT_WEIGHTS,
    split: str | None = None,
    model: str | None = None,
    imgsz: int | None = None,
    batch: int = 8,
    device: str = "cpu",
    drop_unknown: bool = False,
    as_json: Json = False,
) -> int:
    """Measure a detector's accuracy: COCO AP, VOC 11-point and area AP.

    Parameters
    ----------
    data
        A VOC, COCO or YOLO dataset, PATH or PATH@SPLIT.
    weights
        A shipped name or a .safetensors file.
    split
        Which split (default: val, else test).
    model
        The model the weights must be for.
    drop_unknown
        Leave out objects of classes that the model does not know, instead of refusing them.
    """
    from vovnet.data.open import open_dataset, parse_source
    from vovnet.data.record import problem_lines
    from vovnet.evaluate.run import evaluate

    if batch < 1:
        raise VovnetError(f"--batch {batch}: must be at least 1")
    detector = load_weights(weights, model, imgsz, device)
    path, given_split = parse_source(data)
    dataset = open_dataset(
        path, split or given_split, detector.names, drop_unknown=drop_unknown, purpose="val"
    )
    for line in problem_lines(dataset):
        note(line)
    with progress("images", len(dataset)) as advance:
        metrics = evaluate(detector, dataset, batch=batch, on_images=advance)
    metrics |= {"weights": weights, "split": dataset.split, "problems": len(dataset.problems)}
    if as_json:
        print_json(metrics)
    else:
        _print_metrics(metrics)
    return EXIT_OK


def _print_metrics(metrics: dict[str, Any]) -> None:
    classes = metrics.pop("per_class")
    for key, value in metrics.items():
        print(f"{key:<12} {f'{value:.4f}' if isinstance(value, float) else value}")
    print_table([{"class": name, **values} for name, values in classes.items()])
