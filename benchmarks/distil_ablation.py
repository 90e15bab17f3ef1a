"""What a teacher is worth: VoVDet-nano with and without one, in pairs of one seed.

    python benchmarks/distil_ablation.py [--teacher ../shared/models/yolox_nano.onnx]
        [--data ../shared/data/voc2007] [--unlabelled DIR] [--seeds 0 1 2] [--steps 1200]

Both of a pair see the same images in the same views and begin from the same random weights; only
the taught one learns the teacher's finds beside the labels. With --unlabelled there is a third,
which sees those pictures too, in as many steps. All train on the list fit without the held-out
images of ablations.py, which judge; the list report is not looked at. The teacher's description
lies beside its file, else `vovnet describe` proposes one. Every run lies below --work with its
result: what is finished is not done again, what was stopped goes on. --out holds a row a run, and
the mean of the pairs' differences, with its standard error, is printed.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from ablations import split_off, training_minutes
from common import claim, machine, write_rows
from vovdet_candidates import PROTOCOL, multiple
from vovnet.files import write_atomically
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import load_run, run_training

FIGURES = ("map_50", "map_50_95")


def variants(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What each run of a seed has beside the protocol."""
    teacher = {"teacher": str(given.teacher), "teacher_conf": given.conf}
    found: dict[str, dict[str, Any]] = {"plain": {}, "taught": teacher}
    if given.unlabelled:
        found["taught, more pictures"] = teacher | {"unlabelled": [str(given.unlabelled)]}
    return found


def train(variant: str, changes: dict[str, Any], seed: int, given: argparse.Namespace, voc: Path):
    """Train one, or go on with it; returns its row, which a finished one has ready."""
    folder = given.work / f"{variant.replace(', ', '-').replace(' ', '-')}.{seed}"
    values: dict[str, Any] = PROTOCOL | {
        "model": "vovdet_nano",
        "data": [f"{voc}@fit"],
        "val": f"{voc}@holdout",
        "val_every": 0,
        "imgsz": given.imgsz,
        "resolution": [[0.5, multiple(0.6 * given.imgsz)]],
        "steps": given.steps,
        "batch": given.batch,
        "seed": seed,
        **changes,
    }
    claim(folder, values | {"holdout": given.holdout})
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    resume = (folder / "state.safetensors").exists()
    recipe = load_run(folder) if resume else recipe_from_dict(values)
    last = run_training(recipe, folder, resume=resume, on_row=tell, on_note=tell)
    row = {
        "variant": variant,
        "seed": seed,
        "views": given.steps * given.batch,
        "imgsz": given.imgsz,
        "holdout": given.holdout,
        **{key: round(float(last[key] or 0), 4) for key in FIGURES},
        "train_minutes": training_minutes(folder),
        **machine(),
    }
    write_atomically(result, json.dumps(row, indent=1).encode())
    return row


def differences(rows: list[dict[str, Any]], key: str) -> dict[str, list[float]]:
    """Of every other variant, its figure less the plain one's, seed by seed."""
    plain = {row["seed"]: row[key] for row in rows if row["variant"] == "plain"}
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["variant"] != "plain" and row["seed"] in plain:
            found.setdefault(row["variant"], []).append(row[key] - plain[row["seed"]])
    return found


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The mean difference of each variant, with its standard error where there are several."""
    lines = []
    for key in FIGURES:
        for variant, each in differences(rows, key).items():
            error = ""
            if len(each) > 1:
                error = f" ± {statistics.stdev(each) / len(each) ** 0.5:.4f}"
            lines.append(f"{variant}: {key} {statistics.mean(each):+.4f}{error}, {len(each)} pairs")
    return lines


def describe(teacher: Path) -> None:
    """Propose a description where none lies beside the teacher's file."""
    if teacher.suffix not in (".onnx", ".xml") or teacher.with_suffix(".json").is_file():
        return
    from vovnet.detect.propose import propose

    text = json.dumps(propose(teacher).description, indent=1)
    write_atomically(teacher.with_suffix(".json"), text.encode())


def linked(teacher: Path, work: Path) -> Path:
    """The teacher's file in a folder where a description may be written."""
    files = [teacher, *filter(Path.is_file, map(teacher.with_suffix, (".json", ".bin")))]
    work.mkdir(parents=True, exist_ok=True)
    for file in files:
        link = work / file.name
        if not link.exists():
            link.symlink_to(file.resolve())
    return work / teacher.name


def tell(line: object) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train every pair; the table is written anew after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=Path("../shared/models/yolox_nano.onnx"))
    parser.add_argument("--conf", type=float, default=0.3, help="least score that is learned")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/voc2007"))
    parser.add_argument("--unlabelled", type=Path, help="a folder of more pictures")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=PROTOCOL["steps"])
    parser.add_argument("--batch", type=int, default=PROTOCOL["batch"])
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--holdout", type=int, default=400, help="images to measure on")
    parser.add_argument("--work", type=Path, default=Path("runs/distil"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distil.csv"))
    given = parser.parse_args()
    if given.teacher.suffix in (".onnx", ".xml"):
        given.teacher = linked(given.teacher, given.work / "teacher")
        describe(given.teacher)
    voc = split_off(given.data, given.work / "voc", given.holdout)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for variant, changes in variants(given).items():
            rows.append(train(variant, changes, seed, given, voc))
            tell(rows[-1])
            write_rows(given.out, rows)
    for line in summary(rows):
        print(line)
    print(given.out)


if __name__ == "__main__":
    main()
