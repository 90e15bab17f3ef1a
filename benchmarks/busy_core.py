"""Training beside another program that keeps one core busy: are the threads chosen well?

    python benchmarks/busy_core.py [--steps 12] [--rounds 3] [--quiet] [--out FILE.csv]

Trains VoVDet-nano on made-up pictures with the number of threads that `train` tries out, and with
every number that it may choose, in turn, each in a process of its own. Prints CSV: images/s (the
median of the rounds), and the best number's rate over the chosen one's. `--quiet` leaves the other
program out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import machine, write_rows
from small_defects import write
from vovnet.limits import usable_cores
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import load_run, run_training

BUSY = "while True: pass"


@contextmanager
def busy_program(wanted: bool) -> Iterator[None]:
    """Another program that computes all the time, on one core."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def train(data: Path, threads: int, steps: int) -> None:
    """One training; prints its rate and its threads as JSON. 0 threads: as `train` chooses."""
    values = {"model": "vovdet_nano", "data": [str(data / "data.yaml")], "val": "none"}
    values |= {"steps": steps, "batch": 16, "imgsz": 256, "threads": threads or None}
    with tempfile.TemporaryDirectory() as folder:
        row = run_training(recipe_from_dict(values), Path(folder))
        print(json.dumps([row["images_per_s"], load_run(Path(folder)).threads]))


def rate(data: Path, threads: int, steps: int) -> tuple[float, int]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", str(data), str(threads), "--steps", str(steps)]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    images_per_s, used = json.loads(done.stdout)
    return images_per_s, used


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.one:
        train(Path(given.one[0]), int(given.one[1]), given.steps)
        return
    counts = [0, *range(1, usable_cores() + 1)]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    chosen: list[int] = []
    with tempfile.TemporaryDirectory() as folder, busy_program(not given.quiet):
        write(Path(folder), {"train": 64, "val": 1}, seed=0)
        for _ in range(given.rounds):
            for count in counts:
                images_per_s, used = rate(Path(folder), count, given.steps)
                rates[count].append(images_per_s)
                if not count:
                    chosen.append(used)
    medians = {count: statistics.median(found) for count, found in rates.items()}
    row = {
        "beside": "nothing" if given.quiet else "one busy program",
        "chosen_threads": "/".join(map(str, chosen)),
        "chosen_images_per_s": medians.pop(0),
        **{f"images_per_s_{count}": median for count, median in medians.items()},
    }
    row["best_over_chosen"] = round(max(medians.values()) / row["chosen_images_per_s"], 3)
    write_rows(given.out, [row | {"steps": given.steps, "rounds": given.rounds} | machine()])


if __name__ == "__main__":
    main()
