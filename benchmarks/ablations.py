"""What each choice in VoVDet-nano's recipe is worth: variants, one after the other, on a hold-out.

    python benchmarks/ablations.py [--minutes 20 | --epochs N] [--only VARIANT ...]
        [--data ../shared/data/voc2007] [--holdout 400] [--recipe recipes/vovdet_nano.voc.yaml]
        [--out benchmarks/results/ablations.csv]

A variant is the recipe with other values, trained briefly. `--holdout` images, drawn once from the
list fit, are left out of training and measured on, not the list report: what is chosen by a figure
must not be reported by it. Variants are compared after the same time, so that a
slower step must be worth it; by --epochs, after the same images.

Each variant's run lies below --work with its result: what is finished is not done again, what was
stopped goes on, and the CSV is written anew after each.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from common import claim, derive_voc, machine, voc_list, write_rows
from vovnet.files import write_atomically
from vovnet.train.recipe import changed, read_recipe, recipe_from_dict
from vovnet.train.run import load_run, run_training

FIT = "fit"  # stands for the list without the hold-out
# Recipe values that differ from the base's.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "base_seed_1": {"seed": 1},  # how much luck there is in a figure
    "base_seed_2": {"seed": 2},
    "lr_third": {"lr": 0.002},
    "lr_double": {"lr": 0.012},
    "batch_16": {"batch": 16},
    "batch_64": {"batch": 64},
    "adamw": {"optimizer": "adamw", "lr": 0.002},
    "sgd": {"optimizer": "sgd", "lr": 0.012, "nesterov": True, "weight_decay": 0.0005},
    "weight_decay_low": {"weight_decay": 0.01},
    "weight_decay_high": {"weight_decay": 0.1},
    "final_lr_0": {"final_lr": 0.0},
    "ema_0.998": {"ema_decay": 0.998},
    "ema_0.9998": {"ema_decay": 0.9998},
    "mosaic_off": {"mosaic": [0.0, 0.0, 0.0]},
    "mosaic_20": {"mosaic": [0.2, 0.1, 0.8]},
    "mosaic_70": {"mosaic": [0.7, 0.1, 0.8]},
    "mosaic_to_90": {"mosaic": [0.4, 0.1, 0.9]},
    "mixup_15": {"mixup": [0.15, 0.1, 0.8]},
    "zoom_narrow": {"zoom": [0.7, 1.4]},
    "zoom_wide": {"zoom": [0.3, 2.0]},
    "zoom_centred": {"zoom": [0.6, 1.8]},  # objects as large as in the evaluated whole images
    "aspect_0": {"aspect": 0.0},
    "balance": {"balance": 0.1},
    "resolution_constant": {"resolution": []},
    "resolution_late": {"resolution": [[0.3, 128], [0.7, 160], [0.9, 192]]},
    "resolution_early": {"resolution": [[0.1, 128], [0.3, 160], [0.5, 192], [0.7, 224]]},
    "difficult": {"difficult": True},
    "voc_only": {"data": [FIT]},
}


def split_off(data: Path, folder: Path, holdout: int) -> Path:
    """A data set with `data`'s list fit in two: holdout, drawn once and for all, and fit."""
    stems = voc_list(data, "fit")
    drawn = np.random.default_rng(0).permutation(len(stems))[:holdout]
    held = {stems[i] for i in drawn}
    lists = {
        "fit": [stem for stem in stems if stem not in held],
        "holdout": [stem for stem in stems if stem in held],
    }
    return derive_voc(data, folder, lists)


def values_of(variant: str, given: argparse.Namespace, voc: Path) -> dict[str, Any]:
    """The variant's recipe: short, on the derived lists in place of PASCAL's."""
    values = read_recipe(given.recipe)
    length = {"epochs": given.epochs} if given.epochs else {"minutes": given.minutes}
    values |= {"data": [FIT, *values["data"][1:]], "val": f"{voc}@holdout", "val_every": 0}
    values = changed(values, length | VARIANTS[variant])
    values["data"] = [f"{voc}@fit" if source == FIT else source for source in values["data"]]
    return values


def measure(variant: str, given: argparse.Namespace, voc: Path) -> dict[str, Any]:
    """Train a variant, or go on with it; returns its row, which a finished one has ready."""
    folder = given.work / variant
    result = folder / "result.json"
    values = values_of(variant, given, voc)
    more = {"holdout": given.holdout, "source": given.data, "device": given.device}
    claim(folder, values | more)
    if result.exists():
        return json.loads(result.read_text())
    resume = (folder / "state.safetensors").exists()
    recipe = load_run(folder) if resume else recipe_from_dict(values)

    def on_row(line: dict[str, Any]) -> None:
        tell(f"{variant}: epoch {line['epoch']} at {line['size']}, {line['images_per_s']}/s")

    last = run_training(recipe, folder, resume=resume, device=given.device, on_row=on_row)
    row = {
        "variant": variant,
        "changes": json.dumps(VARIANTS[variant]),
        **{key: round(float(last[key]), 4) for key in ("map_50", "map_50_95")},
        "images_per_s": last["images_per_s"],
        "epochs": last["epoch"],
        "minutes": training_minutes(folder),
        **machine(),
    }
    write_atomically(result, json.dumps(row, indent=1).encode())
    return row


def training_minutes(folder: Path) -> float:
    """Minutes of training in a run, over all its epochs."""
    lines = (folder / "results.csv").read_text().splitlines()
    column = lines[0].split(",").index("seconds")
    return round(sum(float(line.split(",")[column]) for line in lines[1:]) / 60, 1)


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure what is missing; write all rows after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each variant")
    parser.add_argument("--epochs", type=int, help="of training, instead of minutes")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/voc2007"))
    parser.add_argument("--holdout", type=int, default=400, help="images to measure on")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/vovdet_nano.voc.yaml"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablations.csv"))
    given = parser.parse_args()
    voc = split_off(given.data, given.work / "voc", given.holdout)
    rows = []
    for variant in given.only:
        rows.append(measure(variant, given, voc))
        tell(f"{variant}: map_50 {rows[-1]['map_50']}, map_50_95 {rows[-1]['map_50_95']}")
        write_rows(given.out, rows)
    print(given.out)


if __name__ == "__main__":
    main()
