"""Images per second that `vovnet doctor` examines, on one core: headers only, and all pixels.

    python benchmarks/doctor_speed.py DATA ... [--rounds 3]

Counted is processor time, which does not suffer from what else runs; the files should be in memory,
so each round after the first is told. Prints CSV.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from vovnet.data.doctor import examine


def images_per_second(data: Path, pixels: bool, rounds: int) -> tuple[int, list[float]]:
    """The number of images, and the rate in each round but the first."""
    rates: list[float] = []
    images = 0
    for _ in range(rounds + 1):
        start = time.process_time()
        images = examine(data, pixels=pixels, workers=1).report.images
        rates.append(images / (time.process_time() - start))
    return images, rates[1:]


def main() -> int:
    """Print a line for each data set and way of reading."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("data,images,read,median images/s,least,most")
    for data in arguments.data:
        for pixels in (False, True):
            images, rates = images_per_second(data, pixels, arguments.rounds)
            read = "pixels" if pixels else "headers"
            numbers = (statistics.median(rates), min(rates), max(rates))
            row = [data.name, images, read, *(f"{rate:.0f}" for rate in numbers)]
            print(*row, sep=",", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
