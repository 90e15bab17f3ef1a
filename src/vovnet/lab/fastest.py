"""The fastest runtime for given weights on this machine, measured once: `--runtime auto`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vovnet.environment import environment
from vovnet.errors import VovnetError
from vovnet.files import cache_folder, write_atomically
from vovnet.lab.bench import Protocol, bench_jobs
from vovnet.lab.competitor import Job
from vovnet.lab.row import BenchRow
from vovnet.load import file_readers
from vovnet.runtimes import RUNTIMES, SLOW_TO_OPEN
from vovnet.shipped import is_model_file, weights_path

_PROTOCOL = Protocol(seconds=0.4, repeats=3, warmup=0.3, memory=False, energy=False)


@dataclass(frozen=True)
class Fastest:
    """A runtime, its milliseconds for one image, and those of torch's eager mode beside it."""

    runtime: str
    ms: float
    eager_ms: float | None  # None for an ONNX file, which torch does not run
    known: bool = False  # from an earlier measurement


def fastest_runtime(
    weights: str,
    precision: str = "fp32",
    *,
    imgsz: int | None = None,
    device: str = "cpu",
    note: Callable[[str], None] = lambda line: None,
) -> Fastest:
    """The runtime that is installed, gives torch's numbers here, and takes the least time.

    What was measured is kept in the user's cache folder for these weights, this machine and these
    versions, and not measured again. Raises `VovnetError` if no runtime can be used.
    """
    path = _place(weights, precision, imgsz, device)
    if (known := _known(path)) is not None:
        return known
    ways = [n for n in RUNTIMES if n not in SLOW_TO_OPEN]
    kind = device.partition(":")[0]
    ways = [n for n in ways if precision in RUNTIMES[n].precisions.get(kind, ())]
    if is_model_file(weights):
        ways = [n for n in ways if n in file_readers(weights)]
    else:
        ways = list(dict.fromkeys(("eager", *ways)))
    jobs = [
        Job(weights, imgsz, device=device, runtime=name, precision=precision)  # pyrefly: ignore
        for name in ways
    ]
    note(f"measuring {len(jobs)} runtimes, this once")
    rows = [row for row in bench_jobs(jobs, _PROTOCOL) if _usable(row)]
    if not rows:
        raise VovnetError(f"{weights}: no runtime computes it in {precision} on {device}")
    best = min(rows, key=_ms)
    eager = next((_ms(row) for row in rows if row.runtime == "eager"), None)
    found = Fastest(best.runtime, _ms(best), eager)
    facts = asdict(found) | {"weights": weights, "environment": environment()}
    write_atomically(path, json.dumps(facts, indent=1).encode())
    return found


def _usable(row: BenchRow) -> bool:
    return row.error is None and row.correct is not False and row.latency_ms.value is not None


def _ms(row: BenchRow) -> float:
    """From JPEG to boxes where that is known, else of the network."""
    measured = (row.stages_ms or {}).get("end_to_end", row.latency_ms)
    return float(measured.value or row.latency_ms.value or 0.0)


def _place(weights: str, precision: str, imgsz: int | None, device: str) -> Path:
    """The file of a measurement: it is another one for other weights, machines and versions."""
    path = weights_path(weights)
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []  # an IR's numbers
    digest = hashlib.sha256()
    try:
        for file in (path, *beside):
            digest.update(file.read_bytes())
    except OSError as error:
        what = f"{error.filename}: cannot be read ({error.strerror}); check the path"
        raise VovnetError(what) from None
    machine: dict[str, Any] = environment()
    digest.update(json.dumps([precision, imgsz, device, machine], sort_keys=True).encode())
    return cache_folder() / "fastest" / f"{digest.hexdigest()[:32]}.json"


def _known(path: Path) -> Fastest | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        eager = facts["eager_ms"]
        eager = None if eager is None else float(eager)
        found = Fastest(str(facts["runtime"]), float(facts["ms"]), eager)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged, or not there: it is measured again
    return replace(found, known=True) if found.runtime in RUNTIMES else None
