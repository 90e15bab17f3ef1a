"""`vovnet serve` under many clients for minutes, then told to stop under load.

Each client asks for one photograph after the other over one connection; refused with 503, it waits
as long as Retry-After says. Every answer is compared with what `detect()` finds here. At the end
SIGTERM comes while all ask: what is on its way then must be answered. Exits with 1 unless every
answer is right, none is missing or there twice, and the server ends with 0.

python benchmarks/serve_soak.py [--minutes 5] [--clients 200] [--csv serve_soak.csv]
    [-- OPTIONS OF vovnet serve]
"""

import argparse
import http.client
import io
import json
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from skimage import data

from common import write_rows
from serve_load import server
from vovnet.load import load_detector

Wanted = dict[bytes, list[dict[str, Any]]]  # what is to be found in each picture


@dataclass
class Told:
    """What all clients were told."""

    stop: threading.Event = field(default_factory=threading.Event)
    times: list[float] = field(default_factory=list)  # seconds of each answer
    counts: Counter[str] = field(default_factory=Counter)


def client(url: str, wanted: Wanted, first: int, told: Told) -> None:
    """Ask until the stop; an answer that does not come is counted as lost."""
    address, pictures = urlsplit(url).netloc, list(wanted)
    connection = http.client.HTTPConnection(address, timeout=120)
    number = first
    while not told.stop.is_set():
        picture = pictures[number % len(pictures)]
        start = time.perf_counter()
        try:
            connection.request("POST", "/v1/predict", picture)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            told.counts[f"lost: {type(error).__name__}"] += 1
            connection.close()
            continue
        if answer.status == 200:
            told.times.append(time.perf_counter() - start)
            right = [row["detections"] for row in body["results"]] == [wanted[picture]]
            told.counts["right" if right else "wrong"] += 1
            number += 1
        else:
            told.counts[str(answer.status)] += 1
            told.stop.wait(float(answer.headers.get("Retry-After", 1)))
    connection.close()


def photographs() -> Wanted:
    """Four photographs as JPEG files, and what `detect()` finds in them."""
    detector = load_detector("vovdet_nano.voc", runtime="onnxruntime")
    wanted: Wanted = {}
    for picture in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90)
        wanted[file.getvalue()] = detector.detect(file.getvalue()).to_dict()
    return wanted


def metric(url: str, name: str) -> float:
    """A number of the server's own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def soak(url: str, wanted: Wanted, clients: int, seconds: float, told: Told) -> list[float]:
    """Ask for so long; the server's memory in MB when it starts, in the middle and at the end,
    where it still runs and all still ask."""
    memory = [metric(url, "process_resident_memory_bytes") / 1e6]
    for number in range(clients):
        arguments = (url, wanted, number, told)
        threading.Thread(target=client, args=arguments, name=f"client {number}").start()
    for _ in range(2):
        time.sleep(seconds / 2)
        memory.append(metric(url, "process_resident_memory_bytes") / 1e6)
    return memory


def join_clients() -> None:
    """Wait until every client has its answer."""
    for thread in threading.enumerate():
        if thread.name.startswith("client "):
            thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("options", nargs="*", help="of vovnet serve, after --")
    chosen = parser.parse_args()
    wanted, told = photographs(), Told()
    with server(chosen.options or ["--runtime", "onnxruntime"]) as (process, url):
        start = time.perf_counter()
        memory = soak(url, wanted, chosen.clients, chosen.minutes * 60, told)
        spent, answered = time.perf_counter() - start, len(told.times)
        told.stop.set()
        process.send_signal(signal.SIGTERM)
        join_clients()
        code, said = process.wait(), process.stderr.read()
    cuts = quantiles(told.times, n=100)
    faults = {key: n for key, n in told.counts.items() if key not in ("right", "503")}
    row = {
        "clients": chosen.clients,
        "seconds": round(spent),
        "right": told.counts["right"],
        "refused_503": told.counts["503"],
        "faults": faults or 0,
        "answered_after_sigterm": len(told.times) - answered,
        "exit_code": code,
        "pictures_a_second": round(answered / spent, 1),
        "p50_s": round(cuts[49], 2),
        "p99_s": round(cuts[98], 2),
        **dict(zip(("mb_start", "mb_middle", "mb_end"), map(round, memory), strict=True)),
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()))
    if chosen.csv:
        write_rows(chosen.csv, [row])
    sys.exit(f"{faults} {said}" if faults or code or said else 0)


if __name__ == "__main__":
    main()
