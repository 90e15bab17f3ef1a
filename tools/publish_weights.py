"""Turn a run into shipped weights: half precision, measured as stored, told apart by metadata.

python tools/publish_weights.py RUN NAME --val DATA@SPLIT --licence TEXT --train-command TEXT
"""

import argparse
from pathlib import Path

from vovnet.data.open import open_dataset, parse_source
from vovnet.evaluate.run import evaluate
from vovnet.lab import environment
from vovnet.models.weights import load_detector, load_tensors, save_detector
from vovnet.shipped import SHIPPED


def publish(run: Path, name: str, val: str, licence: str, command: str, imgsz: int | None) -> dict:
    """Write the weights of `run` as the shipped `name`; returns the metrics stored with them.

    `imgsz` is the input side they ship with, if not the run's own.
    """
    last = run / "weights" / "last.safetensors"
    path = SHIPPED[name]
    training = load_tensors(last)[1]
    facts = {
        "licence": licence,
        "command": command,
        "recipe": training["recipe"],
        "epochs_done": training["epoch"],
        "category_ids": list(range(1, len(training["names"]) + 1)),
        **{key: training[key] for key in ("averaged",) if key in training},
    }
    save_detector(path, load_detector(last, imgsz=imgsz), half=True, **facts)
    # Measured on the file as it ships, then written into it.
    metrics = _measure(path, val)
    save_detector(path, load_detector(last, imgsz=imgsz), half=True, **facts, metrics=metrics)
    return metrics


def _measure(path: Path, val: str) -> dict:
    source, split = parse_source(val)
    detector = load_detector(path, fuse=True)
    figures = evaluate(detector, open_dataset(source, split, detector.names, purpose="val"))
    machine = environment()
    return {
        **{k: figures[k] for k in ("map_50", "map_50_95", "voc07_ap", "images")},
        **{k: v for k, v in figures.items() if k.startswith("mask_")},
        "imgsz": detector.input_spec.size[0],
        "command": f"vovnet val --data {source} --split {split} --weights {path.stem} --json",
        "cpu": f"{machine['cpu']['model']}, {machine['cpu']['capability']}",
        "torch": machine["versions"]["torch"],
    }


def main() -> None:
    """Parse, publish, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=sorted(SHIPPED))
    parser.add_argument("--val", required=True, metavar="DATA@SPLIT")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--train-command", required=True)
    parser.add_argument("--imgsz", type=int)
    given = parser.parse_args()
    command = given.train_command
    print(publish(given.run, given.name, given.val, given.licence, command, given.imgsz))
    print(SHIPPED[given.name])


if __name__ == "__main__":
    main()
