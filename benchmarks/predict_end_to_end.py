"""How much of the network's own speed `vovnet predict` keeps, from JPEG files to boxes.

    python benchmarks/predict_end_to_end.py [--images FOLDER] [--seconds 8] [--rounds 5]

Per model, in alternating rounds on the same threads: the network alone (one prepared image,
batch 1) and the whole way (open, decode, resize, normalise, network, suppression) over real
files. Prints images/s (median of the rounds, with the least and the greatest) and their ratio.
Without --images, scikit-image's photographs are written as JPEG of 500 pixels.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import cycle, islice
from pathlib import Path

import torch

from vovnet.images import load_image
from vovnet.lab import environment
from vovnet.models.detector import Detector
from vovnet.models.weights import load_detector
from vovnet.predict import expand_sources, predict_files
from vovnet.shipped import SHIPPED

PHOTOGRAPHS = [f"skimage:{n}" for n in ("astronaut", "chelsea", "motorcycle_left", "coffee")]


def photographs(folder: Path) -> list[Path]:
    """The photographs as JPEG files, the longer side 500 pixels, as in PASCAL VOC."""
    paths = []
    for source in expand_sources(PHOTOGRAPHS):
        image = load_image(source)
        image.thumbnail((500, 500))
        paths.append(folder / f"{source.stem}.jpg")
        image.save(paths[-1], quality=92)
    return paths


def rate(work: Callable[[int], None], seconds: float) -> float:
    """Images per second of `work`, which does as many images as it is told."""
    work(3)
    start = time.perf_counter()
    work(10)
    count = max(10, round(seconds / (time.perf_counter() - start) * 10))
    start = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - start)


def network_alone(detector: Detector, path: Path) -> Callable[[int], None]:
    """The forward pass on one prepared image."""
    pixels, _ = detector.input_spec.prepare(load_image(path))
    images = detector.normalize(torch.from_numpy(pixels.copy())[None])

    @torch.inference_mode()
    def work(count: int) -> None:
        for _ in range(count):
            detector(images)

    return work


def end_to_end(detector: Detector, paths: list[Path]) -> Callable[[int], None]:
    """What `vovnet predict --no-save` does, over the files again and again."""

    def work(count: int) -> None:
        for row in predict_files(detector, islice(cycle(paths), count)):
            assert row.error is None

    return work


def compare(name: str, paths: list[Path], seconds: float, rounds: int) -> dict:
    """One line of the result."""
    detector = load_detector(name, fuse=True)
    contestants = {
        "network": network_alone(detector, paths[0]),
        "end_to_end": end_to_end(detector, paths),
    }
    rates: dict[str, list[float]] = {key: [] for key in contestants}
    for _ in range(rounds):
        for key, work in contestants.items():
            rates[key].append(rate(work, seconds / 2))
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    row: dict = {"weights": name, "threads": torch.get_num_threads(), "rounds": rounds}
    for key, values in {**rates, "ratio": ratios}.items():
        row[key] = round(statistics.median(values), 3)
        row[f"{key}_min"], row[f"{key}_max"] = round(min(values), 3), round(max(values), 3)
    machine = environment()
    cpu = f"{machine['cpu']['model']}, {machine['cpu']['capability']}"
    return row | {"cpu": cpu, "torch": machine["versions"]["torch"], "date": str(date.today())}


def main() -> None:
    """Measure every shipped detector and print CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="a folder of images")
    parser.add_argument("--seconds", type=float, default=8.0, help="per round and model")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = expand_sources([given.images]) if given.images else photographs(Path(folder))
        rows = [compare(name, paths, given.seconds, given.rounds) for name in SHIPPED]
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
