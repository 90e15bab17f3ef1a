"""How much of the network's own speed `detect()` and `vovnet predict` keep.

    python benchmarks/predict_end_to_end.py [--weights NAME ...] [--runtime eager openvino ...]
        [--precision fp32 int8] [--images FOLDER] [--seconds 8] [--rounds 5]

Per weights, runtime and precision, in alternating rounds on the same threads: the network alone
(one prepared image, batch 1), `detect()` on a decoded array (resize, normalise, network,
suppression), and the whole way over real files, opened and decoded too. Prints images/s (median of
the rounds, with the least and the greatest), and their ratios to the network's. Without --images,
scikit-image's photographs are written as JPEG of 500 pixels; they calibrate int8 too, enough
for its speed.
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

import numpy as np
import torch

from vovnet.detect.file_detector import FileDetector
from vovnet.images import load_image
from vovnet.lab import environment
from vovnet.load import load_detector
from vovnet.models.detector import Detector
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


def network_alone(detector: Detector | FileDetector, path: Path) -> Callable[[int], None]:
    """The forward pass on one prepared image; of an exported file all that is inside it."""
    pixels = detector.input_spec.prepare(load_image(path))[0][None]
    if isinstance(detector, FileDetector):
        feeds = detector.feeds(pixels)
        return lambda count: [detector.session.run(feeds) for _ in range(count)] and None
    images = detector.normalize(torch.from_numpy(pixels.copy()))

    @torch.inference_mode()
    def work(count: int) -> None:
        for _ in range(count):
            detector(images)

    return work


def on_arrays(detector: Detector | FileDetector, paths: list[Path]) -> Callable[[int], None]:
    """`detect()` on decoded pictures, again and again."""
    arrays = [np.asarray(load_image(path)) for path in paths]

    def work(count: int) -> None:
        for array in islice(cycle(arrays), count):
            detector.detect(array)

    return work


def end_to_end(detector: Detector | FileDetector, paths: list[Path]) -> Callable[[int], None]:
    """What `vovnet predict --no-save` does, over the files again and again."""

    def work(count: int) -> None:
        for row in predict_files(detector, islice(cycle(paths), count)):
            assert row.error is None

    return work


def compare(
    name: str, runtime: str, precision: str, paths: list[Path], seconds: float, rounds: int
) -> dict:
    """One line of the result."""
    detector = load_detector(
        name, runtime=runtime, precision=precision, fuse=True, calibration=paths
    )
    contestants = {
        "network": network_alone(detector, paths[0]),
        "detect": on_arrays(detector, paths),
        "end_to_end": end_to_end(detector, paths),
    }
    rates: dict[str, list[float]] = {key: [] for key in contestants}
    for _ in range(rounds):
        for key, work in contestants.items():
            rates[key].append(rate(work, seconds / 3))
    ratios = {
        f"{key}_ratio": [b / a for a, b in zip(rates["network"], rates[key], strict=True)]
        for key in ("detect", "end_to_end")
    }
    row: dict = {"weights": name, "runtime": runtime, "precision": precision}
    row |= {"threads": torch.get_num_threads(), "rounds": rounds}
    for key, values in {**rates, **ratios}.items():
        row[key] = round(statistics.median(values), 3)
        row[f"{key}_min"], row[f"{key}_max"] = round(min(values), 3), round(max(values), 3)
    machine = environment()
    cpu = f"{machine['cpu']['model']}, {machine['cpu']['capability']}"
    return row | {"cpu": cpu, "torch": machine["versions"]["torch"], "date": str(date.today())}


def main() -> None:
    """Measure every shipped detector and print CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=list(SHIPPED))
    parser.add_argument("--runtime", nargs="+", default=["eager"])
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--images", help="a folder of images")
    parser.add_argument("--seconds", type=float, default=8.0, help="per round and model")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = expand_sources([given.images]) if given.images else photographs(Path(folder))
        rows = [
            compare(name, runtime, precision, paths, given.seconds, given.rounds)
            for name in given.weights
            for runtime in given.runtime
            for precision in given.precision
        ]
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
