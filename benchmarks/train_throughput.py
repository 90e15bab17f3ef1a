"""Training images/s of our loop against a plain loop after torchvision's references.

    python benchmarks/train_throughput.py [--data ../shared/data/voc2007@fit]
        [--model ssd300-mobilenet_v1 dsod300-vovnet27_slim] [--batch 8] [--windows 7] [--steps 8]
        [--device cpu] [--workers N] [--reference-workers N] [--augment zoom] [--cache device]
        [--graphs] [--out FILE.csv]

Three contestants train the same network, from the same images, in batches of the same size, by SGD:

    vovnet       `vovnet train` with its defaults: what the machine is good for decides precision,
                 workers and memory layout; images are decoded once and kept
    torchvision  torchvision's SSD around that network (its transform, matching, loss), fed by its
                 reference script's loader and "ssd" augmentation: see torchvision_reference.py
    synthetic    ours on one batch made up beforehand, on the device: as if data cost nothing

Each is a group of processes that runs as if it were alone. They take turns: all but one are stopped
(SIGSTOP), so that none has the other's leftovers of processor or cache to its credit. A window is
`--steps` whole steps. Prints CSV, a line a model: images/s (median over windows, least, greatest),
the ratios of window to window, and the share of its time that each waits for data.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common import machine, write_rows
from vovnet.data.loader import Batch
from vovnet.losses import Target
from vovnet.models import create_detector
from vovnet.train.data import open_training_data
from vovnet.train.loop import EpochReport
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.run import run_training

CONTESTANTS = ("vovnet", "torchvision", "synthetic")
OBJECTS = 3  # in each made-up image, about as many as in PASCAL VOC
LR = 5e-4  # torchvision's 0.002 for 32 images, for 8
WEIGHT_DECAY = 5e-4


def tell(images: int, waited: float) -> None:
    """Report a step to the process that measures."""
    print(json.dumps({"images": images, "waited": waited}), flush=True)


def recipe_of(given: argparse.Namespace, **changes: Any) -> Recipe:
    """What our loop trains by: torchvision's optimiser, everything else as it comes."""
    values = {
        "model": given.model,
        "data": given.data,
        "steps": 10**9,
        "batch": given.batch,
        "accumulate": 1,
        "workers": given.workers,
        "augment": given.augment,
        "cache": given.cache,
        "graphs": given.graphs,
        "optimizer": "sgd",
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
        "warmup": 0,
        "save_minutes": 1e6,
        **changes,
    }
    return recipe_from_dict({key: value for key, value in values.items() if value is not None})


def vovnet(given: argparse.Namespace, **changes: Any) -> None:
    """Our training, to the end of time."""
    waited_before = 0.0

    def on_step(report: EpochReport, steps: int) -> None:
        nonlocal waited_before
        if report.steps == 1:
            waited_before = 0.0
        tell(given.batch, report.waited - waited_before)
        waited_before = report.waited

    with tempfile.TemporaryDirectory() as folder:
        run_training(
            recipe_of(given, **changes), Path(folder), device=given.device, on_step=on_step
        )


def torchvision(given: argparse.Namespace) -> None:
    """The reference loop, to the end of time."""
    from torchvision_reference import endless, preset, torchvision_ssd, train_step

    dataset = open_training_data(recipe_of(given))
    model = torchvision_ssd(create_detector(given.model, dataset.names)).to(given.device).train()
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=WEIGHT_DECAY)
    batches = endless(dataset.records, preset("ssd"), given.batch, given.reference_workers)
    began = time.perf_counter()
    for images, targets in batches:
        waited = time.perf_counter() - began
        train_step(model, optimizer, images, targets, given.device)
        tell(len(images), waited)
        began = time.perf_counter()


def made_up(size: tuple[int, int], count: int, classes: int) -> Batch:
    """A batch of noise with `OBJECTS` boxes in each image."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=rng)
    targets = []
    for _ in range(count):
        corner = torch.rand(OBJECTS, 2, generator=rng) * 0.6
        sides = 0.1 + torch.rand(OBJECTS, 2, generator=rng) * 0.3
        boxes = torch.cat([corner, corner + sides], 1) * torch.tensor(size * 2)
        targets.append(Target(boxes, torch.randint(0, classes, (OBJECTS,), generator=rng)))
    return Batch(pixels, targets)


def synthetic(given: argparse.Namespace) -> None:
    """Our steps on one batch, to the end of time."""
    from vovnet.train import loop

    class OneBatch:
        """Instead of the loader: the same batch again and again."""

        def close(self) -> None:
            pass

        def __iter__(self) -> Iterator[Batch]:
            while True:
                yield batch

    dataset = open_training_data(recipe_of(given))
    size = create_detector(given.model, dataset.names).input_spec.size
    batch = made_up(size, given.batch, len(dataset.names)).to(torch.device(given.device))
    loop.train_loader = lambda *_, **__: OneBatch()
    vovnet(given, cache="off")


TRAINERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "vovnet": vovnet,
    "torchvision": torchvision,
    "synthetic": synthetic,
}


class Window(NamedTuple):
    """What a contestant did in its turn; times in seconds."""

    images: int
    seconds: float
    waited: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


class Contestant:
    """A training in processes of its own, stopped except within `run`."""

    def __init__(self, name: str, model: str) -> None:
        own = ["--model", model, "--contestant", name]  # the last ones count
        command = [sys.executable, __file__, *sys.argv[1:], *own]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def run(self, steps: int) -> Window:
        """Let it take so many steps; raises `SystemExit` if its training ended."""
        began = time.perf_counter()
        self._signal(signal.SIGCONT)
        rows = [self._step() for _ in range(steps)]
        seconds = time.perf_counter() - began
        self._signal(signal.SIGSTOP)
        # The first step's wait spans the turns of the others.
        waited = sum(row["waited"] for row in rows[1:]) * steps / max(1, steps - 1)
        return Window(sum(row["images"] for row in rows), seconds, waited)

    def _step(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a contestant stopped; see its message above")
        return json.loads(line)

    def end(self) -> None:
        """Kill it with its workers."""
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.wait()


def measure(given: argparse.Namespace, model: str) -> dict[str, list[Window]]:
    """The windows of every contestant with one model, in turns."""
    contestants: dict[str, Contestant] = {}
    windows: dict[str, list[Window]] = {name: [] for name in CONTESTANTS}
    try:
        for name in CONTESTANTS:
            contestants[name] = Contestant(name, model)
            contestants[name].run(given.warmup)  # alone: the others are not there, or stopped
        for turn in range(given.windows):
            for name in CONTESTANTS[:: 1 if turn % 2 else -1]:
                windows[name].append(contestants[name].run(given.steps))
                print(f"{model} {turn + 1}: {name} {windows[name][-1].rate:.2f}/s", file=sys.stderr)
    finally:
        for contestant in contestants.values():
            contestant.end()
    return windows


def spread(name: str, values: list[float]) -> dict[str, float]:
    """Median, least and greatest under a name."""
    values = [round(value, 3) for value in values]
    return {
        name: round(statistics.median(values), 3),
        f"{name}_min": min(values),
        f"{name}_max": max(values),
    }


def result(given: argparse.Namespace, model: str, windows: dict[str, list[Window]]) -> dict:
    """A model's line of the result."""
    rates = {name: [window.rate for window in windows[name]] for name in CONTESTANTS}
    row: dict = {"model": model, "batch": given.batch, "device": given.device}
    row |= {"augment": given.augment, "cache": given.cache or "ram", "graphs": given.graphs}
    for name in CONTESTANTS:
        row |= spread(f"{name}_images_per_s", rates[name])
        row[f"{name}_wait"] = round(
            sum(w.waited for w in windows[name]) / sum(w.seconds for w in windows[name]), 4
        )
    for other in ("torchvision", "synthetic"):
        pairs = zip(rates["vovnet"], rates[other], strict=True)
        row |= spread(f"ratio_to_{other}", [ours / theirs for ours, theirs in pairs])
    return row | {"windows": given.windows, "steps": given.steps} | machine()


def parse() -> argparse.Namespace:
    """The command line; --contestant is for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["../shared/data/voc2007@fit"])
    models = ["ssd300-mobilenet_v1", "dsod300-vovnet27_slim"]
    parser.add_argument("--model", nargs="+", default=models, help="an SSD, Pelee or DSOD")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--windows", type=int, default=7, help="turns of each")
    parser.add_argument("--steps", type=int, default=8, help="of a window")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the first window")
    parser.add_argument("--workers", type=int, help="of our loader (default: by the machine)")
    workers = min(4, os.cpu_count() or 1)  # its script has 4; more than cores would slow it down
    parser.add_argument("--reference-workers", type=int, default=workers)
    parser.add_argument("--augment", choices=["ssd", "zoom"], default="ssd", help="of ours")
    parser.add_argument("--cache", help="of ours: ram, disk, device or off (default: ram)")
    parser.add_argument("--graphs", action="store_true", help="ours as CUDA graphs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a CSV file to write instead of printing")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print, or be a contestant."""
    given = parse()
    if given.contestant:
        [given.model] = given.model
        TRAINERS[given.contestant](given)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else contestants stay, stopped
    rows = [result(given, model, measure(given, model)) for model in given.model]
    write_rows(given.out, rows)


if __name__ == "__main__":
    main()
