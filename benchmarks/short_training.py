"""What minutes of this machine are worth: our detector and torchvision's, from scratch.

    python benchmarks/short_training.py [--minutes 30] [--data ../shared/data/bccd]
        [--recipe recipes/vovdet_nano.bccd-short.yaml] [--only ours torchvision] [--out FILE.csv]
    python benchmarks/short_training.py --finetune [--minutes 5] [--images 50] [--out FILE.csv]

Both train on the list trainval for the same time, loading included, evaluation not. Our evaluator
measures both on the list test:

    ours         the recipe, with its length replaced
    torchvision  ssdlite320_mobilenet_v3_large without any pretrained weights, in a loop after its
                 reference script (torchvision_reference.py): augmentation "ssdlite", SGD with
                 momentum 0.9, weight decay 4e-5, 5 % of warm-up, a cosine to zero over the time;
                 its rate is the script's 0.15 for 192 images in proportion to the batch

With --finetune the first --images of the list train are all there is to learn from, and the recipe
runs twice: from vovdet_nano.voc, and from scratch.

What a trainer did lies in --work; what is finished there is not done again, and what was stopped
goes on. Run it on a machine that does nothing else.
"""

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from common import claim, derive_voc, machine, voc_list, write_rows
from torchvision_reference import endless, preset, train_step
from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.detections import Detections
from vovnet.evaluate.coco import coco_ap
from vovnet.evaluate.run import detect_records
from vovnet.files import write_atomically
from vovnet.images import load_image
from vovnet.models.weights import load_detector
from vovnet.shipped import SHIPPED
from vovnet.train.recipe import changed, read_recipe, recipe_from_dict
from vovnet.train.run import load_run, run_training

PRETRAINED = "vovdet_nano.voc"
SAVE_SECONDS = 120.0
WARMUP = 0.05  # of the time


@dataclass(frozen=True)
class Trained:
    """What was found in the test images, and how the training went."""

    found: list[Detections]
    facts: dict[str, Any]


def ours(
    given: argparse.Namespace, source: str, test: Dataset, folder: Path, **changes: Any
) -> Trained:
    """Train by the recipe on `source`, with `changes`."""
    own = {"data": [source], "val": "none", "minutes": given.minutes}
    values = changed(read_recipe(given.recipe), own | changes)
    resume = (folder / "state.safetensors").exists()
    recipe = load_run(folder) if resume else recipe_from_dict(values)

    def on_row(row: dict[str, Any]) -> None:
        tell(f"{folder.name}: epoch {row['epoch']}, {row['images_per_s']} images/s")

    last = run_training(recipe, folder, resume=resume, on_row=on_row)
    detector = load_detector(folder / "weights" / "last.safetensors", fuse=True)
    facts = {
        "model": recipe.model,
        "imgsz": detector.input_spec.size[0],
        "epochs": last["epoch"],
        "images_per_s": last["images_per_s"],
        "settings": f"{given.recipe.name}, {load_run(folder).amp}",
    }
    return Trained(list(detect_records(detector, test.records)), facts)


class Clock:
    """Seconds of training so far, which a resumed run goes on counting."""

    def __init__(self, seconds: float, total: float) -> None:
        self.seconds = seconds
        self.total = total

    @property
    def share(self) -> float:
        """How much of the time is gone, 0..1."""
        return min(1.0, self.seconds / self.total)

    @property
    def rate(self) -> float:
        """The learning rate's share of its peak: warm-up, then half a cosine to zero."""
        if self.share < WARMUP:
            return max(self.share, 1e-3) / WARMUP
        return 0.5 * (1 + math.cos(math.pi * (self.share - WARMUP) / (1 - WARMUP)))


def torchvision(given: argparse.Namespace, source: str, test: Dataset, folder: Path) -> Trained:
    """Train torchvision's SSDLite on `source`."""
    path, _, split = source.rpartition("@")
    dataset = open_dataset(path, split)
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(dataset.names) + 1
    )
    peak = given.reference_lr * given.reference_batch / 192
    optimizer = torch.optim.SGD(model.parameters(), peak, momentum=0.9, weight_decay=4e-5)
    state = folder / "state.pt"
    clock, steps = Clock(0.0, 60 * given.minutes), 0
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        clock.seconds, steps = saved["seconds"], saved["steps"]
    batches = endless(
        dataset.records, preset("ssdlite"), given.reference_batch, given.reference_workers
    )
    model.train()
    said = saved_at = clock.seconds
    while clock.share < 1:
        began = time.perf_counter()
        images, targets = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = peak * clock.rate
        loss = train_step(model, optimizer, images, targets)
        steps += 1
        clock.seconds += time.perf_counter() - began
        if clock.seconds - said > 30:
            said = clock.seconds
            tell(f"{folder.name}: {clock.share:.0%}, step {steps}, loss {loss:.3f}")
        if clock.seconds - saved_at > SAVE_SECONDS or clock.share >= 1:
            saved_at = clock.seconds
            save_state(state, model, optimizer, clock.seconds, steps)
    done = steps * given.reference_batch
    facts = {
        "model": "ssdlite320_mobilenet_v3_large",
        "imgsz": 320,
        "epochs": round(done / len(dataset), 1),
        "images_per_s": round(done / clock.seconds, 2),
        "settings": f"batch {given.reference_batch}, SGD {peak:.4g}, float32",
    }
    return Trained(detect_with(model, test), facts)


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, seconds: float, steps: int
) -> None:
    """What going on after a stop needs."""
    aside = path.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"seconds": seconds, "steps": steps}, aside)
    aside.replace(path)


@torch.inference_mode()
def detect_with(model: nn.Module, dataset: Dataset) -> list[Detections]:
    """What a torchvision detector finds in every image."""
    model.eval()
    found = []
    for record in dataset.records:
        image = load_image(record.path)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        (one,) = model([pixels])
        arrays = (one["boxes"].numpy(), one["scores"].numpy(), one["labels"].numpy() - 1)
        found.append(Detections(*arrays, names=dataset.names, image_size=image.size[::-1]))
    return found


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def asked(given: argparse.Namespace) -> dict[str, Any]:
    """All that decides a result: options, the recipe's values, and which weights are tuned."""
    options = {k: v for k, v in vars(given).items() if k not in ("only", "work", "out")}
    tuned = SHIPPED[PRETRAINED].read_bytes() if given.finetune else b""
    weights = hashlib.sha256(tuned).hexdigest()
    return options | {"recipe_values": read_recipe(given.recipe), "weights": weights}


def run(name: str, given: argparse.Namespace, train: Callable[[Path], Trained], test: Dataset):
    """Train and measure into `--work`/`name`, or read what is there; returns the row."""
    folder = given.work / f"{name}-{given.minutes:g}min"
    result = folder / "result.json"
    claim(folder, asked(given))
    if not result.exists():
        trained = train(folder)
        figures = coco_ap(trained.found, test.records, test.names)
        row = {
            "trainer": name,
            "minutes": given.minutes,
            **{key: round(getattr(figures, key), 4) for key in ("map_50", "map_50_95")},
            **trained.facts,
            "test_images": len(test),
            **machine(),
        }
        write_atomically(result, json.dumps(row, indent=1).encode())
    row = json.loads(result.read_text())
    tell(f"{name}: map_50 {row['map_50']}, map_50_95 {row['map_50_95']}")
    return row


def from_scratch(given: argparse.Namespace, test: Dataset) -> list[dict]:
    """Ours and torchvision's, one after the other."""
    source = f"{given.data}@trainval"
    trainers: dict[str, Callable[[Path], Trained]] = {
        "ours": lambda folder: ours(given, source, test, folder),
        "torchvision": lambda folder: torchvision(given, source, test, folder),
    }
    return [run(name, given, trainers[name], test) for name in given.only]


def fine_tuned(given: argparse.Namespace, test: Dataset) -> list[dict]:
    """From shipped weights and from scratch, on the same few images."""
    few = voc_list(given.data, "train")[: given.images]
    source = f"{derive_voc(given.data, given.work / 'few', {'few': few})}@few"
    starts: Sequence[tuple[str, str | None]] = (("finetune", PRETRAINED), ("scratch", None))
    return [
        run(
            f"{name}-{given.images}",
            given,
            lambda folder, w=weights: ours(given, source, test, folder, weights=w),
            test,
        )
        for name, weights in starts
    ]


def main() -> None:
    """Train, measure, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, help="of training (default: 30; --finetune: 5)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/bccd"))
    parser.add_argument("--recipe", type=Path, default=Path("recipes/vovdet_nano.bccd-short.yaml"))
    parser.add_argument("--only", nargs="+", choices=["ours", "torchvision"])
    parser.add_argument("--finetune", action="store_true")
    parser.add_argument("--images", type=int, default=50, help="of --finetune")
    parser.add_argument("--reference-batch", type=int, default=16)
    parser.add_argument("--reference-lr", type=float, default=0.15, help="for 192 images")
    parser.add_argument("--reference-workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/short_training"))
    parser.add_argument("--out", type=Path, help="a CSV file to write instead of printing")
    given = parser.parse_args()
    given.minutes = given.minutes or (5.0 if given.finetune else 30.0)
    given.only = given.only or ["ours", "torchvision"]
    test = open_dataset(given.data, "test")
    write_rows(given.out, (fine_tuned if given.finetune else from_scratch)(given, test))


if __name__ == "__main__":
    main()
