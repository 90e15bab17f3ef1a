"""Whether `vovnet predict` stays in flat memory however many pictures there are.

    python benchmarks/many_pictures.py [--counts 10000 100000] [-- OPTIONS OF vovnet predict]

Writes a few tiny pictures into a temporary folder, links them under so many names that the folder
holds the count, and has `vovnet predict FOLDER --no-save` go through it with a list of JSON lines,
in a process of its own per count. Prints pictures/s and the greatest memory of each. What is
looked at is how memory grows, not the network: `vovnet export --imgsz 32 --out small` and `--
--weights small` save most of the time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from PIL import Image

KINDS, SIDE = 16, 16


def make(folder: Path, count: int) -> None:
    """So many pictures, by hard links to a few: a few MB in all."""
    folder.mkdir()
    files = []
    for kind in range(KINDS):
        files.append(folder.parent / f"{folder.name}-{kind}.jpg")
        Image.effect_noise((SIDE, SIDE), 20 + 5 * kind).save(files[-1])
    for number in range(count):
        os.link(files[number % KINDS], folder / f"{number:07}.jpg")


def measure(folder: Path, count: int, options: list[str]) -> dict[str, object]:
    """One run over all of a folder's pictures."""
    rows = folder.parent / f"{folder.name}.jsonl"
    command = [sys.executable, "-m", "vovnet", "predict", str(folder), "--no-save"]
    command += ["--jsonl", str(rows), *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"predict ended with {process.returncode}")
    with rows.open() as lines:
        done = len({json.loads(line)["path"] for line in lines})
    assert done == count, (done, count)
    return {
        "pictures": count,
        "peak_mb": round(used.ru_maxrss / 1024, 1),
        "bytes_a_row": round(rows.stat().st_size / count),
        "pictures_per_s": round(count / seconds, 1),
    }


def main() -> None:
    """Measure each count, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("options", nargs="*", help="of vovnet predict, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            place = Path(folder) / str(count)
            make(place, count)
            print(json.dumps(measure(place, count, given.options)), flush=True)
    from vovnet.lab import environment  # only now: a child's peak counts what its parent held

    cpu = environment()["cpu"]
    told = {"cpu": cpu["model"], "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps(told | {"date": str(date.today())}))


if __name__ == "__main__":
    main()
