"""What `import vovnet` costs beyond `import torch, torchvision`, in fresh interpreters, in turn.

python benchmarks/import_time.py [--rounds 7]
"""

import argparse
import statistics
import subprocess
import sys
import time

BASE = "import torch, torchvision"
CASES = {
    "torch, torchvision": BASE,
    "+ vovnet": f"{BASE}, vovnet",
    "+ vovnet.create_model": f"{BASE}, vovnet; vovnet.create_model",
}


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the median and the range of each case, and its difference to the base."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, code in CASES.items():
            times[case].append(seconds(code))
    base = times["torch, torchvision"]
    for case, values in times.items():
        more = statistics.median(v - b for v, b in zip(values, base, strict=True))
        print(
            f"{case:<24} {statistics.median(values):.3f} s "
            f"({min(values):.3f}..{max(values):.3f}), {more:+.3f} s"
        )


if __name__ == "__main__":
    main()
