"""`vovnet predict --engine ray` with two workers against two plain processes, --shard 1/2 and 2/2.

    python benchmarks/ray_predict.py [--pictures 2000] [--side 320] [--rounds 1] [-- OPTIONS]

All write JSON lines, each worker and process has one core. Rates are told twice: of the whole
command, and from the first to the last file of results, which leaves out what starts once (Ray
itself takes some seconds, whatever the work). Prints rows of JSON; `ratio` is Ray's rate by theirs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

from PIL import Image
from skimage import data

from vovnet.lab import environment

PREDICT = [sys.executable, "-m", "vovnet", "predict"]


def make(folder: Path, count: int, side: int) -> None:
    """Windows of a photograph as JPEG files, by hard links to sixteen."""
    folder.mkdir()
    cat = Image.fromarray(data.chelsea()).resize((2 * side, 2 * side))
    for kind in range(16):
        window = cat.crop((8 * kind, 8 * kind, 8 * kind + side, 8 * kind + side))
        window.save(folder.parent / f"{kind}.jpg", quality=90)
    for number in range(count):
        os.link(folder.parent / f"{number % 16}.jpg", folder / f"{number:06}.jpg")


def plain(folder: Path, out: Path, options: list[str]) -> list[float]:
    """Two processes, a core each; the times at which rows are there."""
    cores = sorted(os.sched_getaffinity(0))[:2]

    def pinned(core: int) -> Callable[[], None]:
        return lambda: os.sched_setaffinity(0, {core})

    options = [*options, "--no-save", "--jsonl", str(out / "rows.jsonl")]
    processes = [
        subprocess.Popen(
            [*PREDICT, str(folder), "--shard", f"{i + 1}/2", *options],
            stdout=subprocess.DEVNULL,
            preexec_fn=pinned(cores[i % len(cores)]),
        )
        for i in range(2)
    ]
    return watch(processes, out, "rows*.jsonl")


def on_ray(folder: Path, out: Path, options: list[str]) -> list[float]:
    """The same by Ray's two workers."""
    command = [*PREDICT, str(folder), "--engine", "ray", "--workers", "2", "--out", str(out)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    return watch([process], out, "part-*.jsonl")


def watch(processes: list[subprocess.Popen], out: Path, files: str) -> list[float]:
    """Seconds to the first results, and to the end; how many rows there were at the first."""
    start, first, early = time.perf_counter(), None, 0
    while any(process.poll() is None for process in processes):
        if first is None and (early := rows_in(out, files)):
            first = time.perf_counter()
        time.sleep(0.05)
    if any(process.returncode for process in processes):
        raise SystemExit("predict failed")
    end = time.perf_counter()
    return [(first or end) - start, end - start, early]


def rows_in(out: Path, files: str) -> int:
    """Lines of all the files."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob(files))


def main() -> None:
    """Measure both in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("options", nargs="*", help="of vovnet predict, after --")
    given = parser.parse_args()
    ways = {"plain": (plain, "rows*.jsonl"), "ray": (on_ray, "part-*.jsonl")}
    whole: dict[str, list[float]] = {way: [] for way in ways}
    steady: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make(place / "in", given.pictures, given.side)
        for _ in range(given.rounds):
            for way, (run, files) in ways.items():
                out = place / way
                out.mkdir()
                first, end, early = run(place / "in", out, given.options)
                assert rows_in(out, files) == given.pictures
                shutil.rmtree(out)
                whole[way].append(given.pictures / end)
                steady[way].append((given.pictures - early) / max(end - first, 1e-6))
                row = {"way": way, "whole_per_s": round(whole[way][-1], 1)}
                print(json.dumps(row | {"steady_per_s": round(steady[way][-1], 1)}), flush=True)
    ratios = {
        "ratio": round(median(whole["ray"]) / median(whole["plain"]), 3),
        "ratio_steady": round(median(steady["ray"]) / median(steady["plain"]), 3),
    }
    cpu = environment()["cpu"]["model"]
    told = {"pictures": given.pictures, "cpu": cpu, "load": os.getloadavg()[0]}
    print(json.dumps(ratios | told | {"date": str(date.today())}))


if __name__ == "__main__":
    main()
