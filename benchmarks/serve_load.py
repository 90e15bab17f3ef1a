"""How many pictures a second `vovnet serve` answers, and how long each waits, for 1 to N clients.

Each client asks again as soon as it is answered, over one connection. Before the server starts, the
same picture goes through `detect()` here, one at a time: the runtime's own rate. Clients and server
share the machine unless --url names a server elsewhere.

python benchmarks/serve_load.py [--picture FILE] [--clients 1 2 4 8 16] [--seconds 10] [--url URL]
    [--csv serve_load.csv] [-- OPTIONS OF vovnet serve]
"""

import argparse
import csv
import http.client
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

from vovnet.load import load_detector


@contextmanager
def server(options: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that runs meanwhile, and its address."""
    command = [sys.executable, "-m", "vovnet", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            if "http://" not in line:
                raise SystemExit(line)
            yield process, line.split()[1]
        finally:
            process.terminate()


def client(url: str, picture: bytes, until: float, times: list[float], faults: list[str]) -> None:
    """Ask until the time is over; keeps each answer's seconds, and what was no answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    while (start := time.perf_counter()) < until:
        connection.request("POST", "/v1/predict", picture, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            times.append(time.perf_counter() - start)
        else:
            faults.append(f"{answer.status} {body[:100]!r}")
    connection.close()


def load(url: str, picture: bytes, clients: int, seconds: float) -> dict[str, object]:
    """Rate and waiting times with so many clients at once."""
    times: list[float] = []
    faults: list[str] = []
    start = time.perf_counter()
    shared = (url, picture, start + seconds, times, faults)
    threads = [threading.Thread(target=client, args=shared) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - start
    cuts = quantiles(times, n=100, method="inclusive")
    return row(f"{clients} clients", len(times) / spent, cuts, len(faults))


def alone(picture: bytes, seconds: float) -> dict[str, object]:
    """`detect()` of one picture after the other, in this process."""
    detector = load_detector("vovdet_nano.voc", runtime="onnxruntime")
    detector.detect(picture)
    times = []
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        detector.detect(picture)
        times.append(time.perf_counter() - start)
    cuts = quantiles(times, n=100, method="inclusive")
    return row("detect() alone", len(times) / sum(times), cuts, 0)


def row(case: str, rate: float, cuts: Sequence[float], faults: int) -> dict[str, object]:
    """One line of the table, times in ms."""
    p50, p99 = (f"{1e3 * cuts[i]:.1f}" for i in (49, 98))
    return {
        "case": case,
        "pictures_a_second": f"{rate:.1f}",
        "p50_ms": p50,
        "p99_ms": p99,
        "faults": faults,
    }


def photograph() -> bytes:
    """A photograph of a cat, 451×300."""
    from PIL import Image
    from skimage import data

    file = io.BytesIO()
    Image.fromarray(data.chelsea()).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--url")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("options", nargs="*", help="of vovnet serve, after --")
    chosen = parser.parse_args()
    picture = chosen.picture.read_bytes() if chosen.picture else photograph()
    rows = []

    def measured(found: dict[str, object]) -> None:
        rows.append(found)
        print("  ".join(f"{key} {value}" for key, value in found.items()), flush=True)

    def ask(url: str) -> None:
        load(url, picture, 1, min(1.0, chosen.seconds))  # the first answers take longer
        for clients in chosen.clients:
            measured(load(url, picture, clients, chosen.seconds))

    if chosen.url:
        ask(chosen.url)
    else:
        measured(alone(picture, chosen.seconds))
        with server(chosen.options or ["--runtime", "onnxruntime"]) as (_, url):
            ask(url)
    if chosen.csv:
        with chosen.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
