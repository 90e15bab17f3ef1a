"""How long `vovnet predict` of one picture takes from a standing start, and its peak memory.

In fresh processes, in turn: an interpreter that does nothing, the shipped ONNX file, which needs no
torch, and the same weights in torch.

python benchmarks/cold_start.py [--picture skimage:chelsea] [--repeats 10] [--csv cold_start.csv]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

MB = 1e6


class Run(NamedTuple):
    """One process: wall time and processor time, in seconds, and its peak memory in bytes."""

    wall: float
    cpu: float
    peak: float


def measure(command: list[str]) -> Run:
    """Run a command to its end; exits with what it said if it fails.

    A process's peak counts what its parent held when it was started, so this script imports
    nothing large before all is measured.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as pipe:
        said = pipe.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {said.decode(errors='replace').strip()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def row(name: str, runs: list[Run], base: list[Run], torch: list[Run]) -> dict[str, object]:
    """What the runs of a case come to, in seconds and MB; ratios are of the least wall times."""
    least, median = min(run.wall for run in runs), statistics.median(run.wall for run in runs)
    peak = max(run.peak for run in runs)
    return {
        "case": name,
        "runs": len(runs),
        "min_s": f"{least:.3f}",
        "median_s": f"{median:.3f}",
        "min_cpu_s": f"{min(run.cpu for run in runs):.3f}",
        "peak_mb": f"{peak / MB:.0f}",
        "times_of_pass": f"{least / min(run.wall for run in base):.1f}",
        "of_torch": f"{least / min(run.wall for run in torch):.3f}",
        "peak_of_torch": f"{peak / max(run.peak for run in torch):.3f}",
    }


def main() -> None:
    """Measure, and print or write the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--picture", default="skimage:chelsea")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    predict = [sys.executable, "-m", "vovnet", "predict", options.picture, "--no-save"]
    cases = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "predict, onnxruntime": predict,
        "predict, torch": [*predict, "--runtime", "eager"],
    }
    for command in cases.values():  # once before, so that files are in memory and compiled
        measure(command)
    runs: dict[str, list[Run]] = {name: [] for name in cases}
    for _ in range(options.repeats):
        for name, command in cases.items():
            runs[name].append(measure(command))
    from common import machine, write_rows  # late, for they import torch: see `measure`

    base, torch = runs["python -c pass"], runs["predict, torch"]
    facts = machine()
    write_rows(options.csv, [row(name, case, base, torch) | facts for name, case in runs.items()])


if __name__ == "__main__":
    main()
