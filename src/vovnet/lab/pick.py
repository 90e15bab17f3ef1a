"""Choose what to run on this machine: `vovnet pick`.

Every candidate is screened by a short bench. Those that could win are then measured against each
other by a longer one, until the choice is one of them: what is chosen was measured properly, and
is the best of the table that is shown. Peak memory, which takes a process for every candidate, is
measured of the finalists only, unless it is limited or the objective.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vovnet.detect.description import read_description
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.lab.bench import Note, Protocol, bench_jobs
from vovnet.lab.competitor import Job
from vovnet.lab.decide import (
    OBJECTIVES,
    Candidate,
    Decision,
    Limits,
    Objective,
    decide,
    loosened,
)
from vovnet.lab.row import BenchRow
from vovnet.lab.target import is_weights
from vovnet.load import file_readers
from vovnet.models.weights import load_metadata
from vovnet.runtimes import RUNTIMES, SLOW_TO_OPEN
from vovnet.shipped import is_model_file, weights_path

SCREENING = Protocol(seconds=0.3, repeats=2, warmup=0.2)
FINAL = Protocol(seconds=1.0, repeats=5)
_FINALISTS = 5
_SLACK = 1.25  # a screening may be wrong by so much

_UNUSUAL = {"cpu": ("fp16",)}  # few processors compute in it

_FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "ncnn": "ncnn", "tensorrt": "tensorrt"}


# mAP by weights, and of int8, which loses some, by job.
Accuracies = Mapping["str | Job", float]


@dataclass(frozen=True)
class Picked:
    """What `pick` found: the decision, every row behind it, and which jobs were measured twice."""

    decision: Decision
    candidates: dict[Job, Candidate]
    rows: dict[Job, BenchRow]
    finalists: frozenset[Job]
    limits: Limits
    objective: Objective

    def job_of(self, candidate: Candidate) -> Job:
        """The job that a candidate of the decision was made from."""
        return next(job for job, own in self.candidates.items() if own is candidate)


def jobs_for(
    names: Sequence[str],
    *,
    imgsz: int | None = None,
    device: str = "cpu",
    runtimes: Sequence[str] = (),
    precisions: Sequence[str] = (),
) -> list[Job]:
    """Every name in every runtime and precision that the device has; all by default.

    An ONNX file or an IR has only the runtimes that `load_detector` reads it with, and no other
    precision than fp32 unless asked for, since nothing tells whether its answer stands it. Raises
    `UnknownNameError` for a runtime that there is not, `VovnetError` if nothing is left.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise UnknownNameError("runtime", runtime, RUNTIMES)
    ways = [
        (runtime, precision)
        for runtime in runtimes or (name for name in RUNTIMES if name not in SLOW_TO_OPEN)
        for precision in RUNTIMES[runtime].precisions.get(device.partition(":")[0], ())
        if (precision in precisions if precisions else precision not in _UNUSUAL.get(device, ()))
    ]
    if not ways:
        asked = " ".join([*runtimes, *precisions])
        raise VovnetError(f"{asked}: no runtime has that on {device}; leave out one of them")
    jobs = [
        Job(name, imgsz, device=device, runtime=runtime, precision=precision)
        for name in names
        for runtime, precision in ways
        if not is_model_file(name) or precision in _file_precisions(name, runtime, precisions)
    ]
    if not jobs:
        raise VovnetError(f"{names[0]}: is read by {', '.join(file_readers(names[0]))} only")
    return jobs


def _file_precisions(name: str, runtime: str, asked: Sequence[str]) -> Sequence[str]:
    able = file_readers(name).get(runtime, ())
    return able if asked else able[:1]


def pick(
    jobs: Sequence[Job],
    accuracies: Accuracies,
    limits: Limits,
    objective: Objective | None = None,
    *,
    screening: Protocol | None = None,
    final: Protocol | None = None,
    note: Note = lambda line: None,
) -> Picked:
    """Measure the jobs and choose one within the limits.

    `accuracies` are mAP by the jobs' models, and of int8, which loses some, by job. The objective
    is accuracy if that of every model is given, else latency: the best value wins, ties go by
    latency. Latency is from JPEG to boxes, or the network's own for all if it is not
    known of each: of a file without a description, say.
    """
    if objective is None:
        objective = (
            "accuracy" if all(j.model in accuracies or j in accuracies for j in jobs) else "latency"
        )
    # A process for every candidate is the dearest part: only where the choice depends on it.
    early = "memory" in limits or objective == "memory"
    metered = "energy" in limits or objective == "energy"  # takes windows of seconds
    screening = screening or replace(SCREENING, memory=early, energy=metered)
    final = final or replace(FINAL, memory=not early)
    note(f"screening {len(jobs)} candidates")
    rows = dict(zip(jobs, bench_jobs(jobs, screening, note=note), strict=True))
    finalists: set[Job] = set()
    while True:
        whole = all(row.stages_ms for row in rows.values() if row.error is None)
        candidates = {
            job: to_candidate(row, accuracy_of(job, accuracies), whole) for job, row in rows.items()
        }
        decision = decide(list(candidates.values()), limits, objective)
        picked = Picked(decision, candidates, rows, frozenset(finalists), limits, objective)
        unsure = _unsure(picked)
        if not unsure:
            return picked
        note(f"measuring {len(unsure)} finalists")
        for job, row in zip(unsure, bench_jobs(unsure, final, note=note), strict=True):
            known = rows[job].peak_memory_bytes
            rows[job] = row if known.value is None else replace(row, peak_memory_bytes=known)
        finalists.update(unsure)


def accuracy_of(job: Job, accuracies: Accuracies) -> float | None:
    """The job's own, if it was measured; else, but for int8, that of float32."""
    own = accuracies.get(job)
    return accuracies.get(job.model) if own is None and job.precision != "int8" else own


def _unsure(picked: Picked) -> list[Job]:
    """The jobs to measure properly before the decision can be trusted."""
    if not picked.finalists:
        near = decide(
            list(picked.candidates.values()), loosened(picked.limits, _SLACK), picked.objective
        )
        # Those on the front, then whoever comes next: a rival may have been screened badly.
        best = dict.fromkeys(picked.job_of(candidate) for candidate in (*near.front, *near.ranked))
        return list(best)[:_FINALISTS]
    choice = picked.decision.choice
    if choice is None or picked.job_of(choice) in picked.finalists:
        return []
    known = [picked.candidates[job] for job in picked.finalists]
    rival = decide(known, picked.limits, picked.objective).choice
    return [picked.job_of(candidate) for candidate in (choice, rival) if candidate is not None]


def to_candidate(row: BenchRow, accuracy: float | None, whole: bool = True) -> Candidate:
    """A bench row as a candidate, with its accuracy if that is known. `whole`: latency is from JPEG
    to boxes where that is known."""
    stages = row.stages_ms if whole and row.stages_ms else {}
    measured = {
        "latency": (stages.get("end_to_end", row.latency_ms), 1.0),
        "energy": (row.joules_per_image, 1.0),
        "memory": (row.peak_memory_bytes, 1e-6),
    }
    values: dict[Objective, float] = {}
    missing: dict[Objective, str] = {}
    for quantity in OBJECTIVES:
        if quantity == "accuracy":
            if accuracy is None and row.precision == "int8":
                missing[quantity] = "int8 was calibrated on noise; give --data to evaluate on"
            elif accuracy is None:
                missing[quantity] = "give --val-results, or --data to evaluate on"
            else:
                values[quantity] = accuracy
            continue
        measurement, scale = measured[quantity]
        if measurement.value is None:
            missing[quantity] = str(measurement.reason)
        else:
            values[quantity] = measurement.value * scale
    return Candidate(row.model, row.runtime, row.precision, values, missing, _unusable(row))


def _unusable(row: BenchRow) -> str | None:
    if row.error is not None:
        return f"not measured: {row.error}"
    if row.correct is False:
        if row.relative_error is None:
            return "wrong output: of another shape, or not finite"
        return f"wrong output: relative error {row.relative_error:.2g}"
    return None


def table(picked: Picked) -> list[dict[str, Any]]:
    """The candidates as rows for people and JSON: the front first, then why each other fell.

    Where no accuracy was given, the map is what the weights say of themselves, on data of their
    own: not `map_compared`, it decides nothing.
    """
    decision = picked.decision
    verdicts = [(c, "chosen" if c is decision.choice else "on the front") for c in decision.front]
    rows = []
    for candidate, verdict in (*verdicts, *decision.fell):
        job = picked.job_of(candidate)
        row = picked.rows[job]
        own = row.map_50_95 if candidate.precision != "int8" else None
        rows.append(
            {
                "model": candidate.name,
                "runtime": candidate.runtime,
                "precision": candidate.precision,
                "imgsz": row.imgsz,
                "latency_ms": candidate.values.get("latency"),
                "map_50_95": candidate.values.get("accuracy", own),
                "map_compared": "accuracy" in candidate.values,
                "joules_per_image": candidate.values.get("energy"),
                "peak_memory_mb": candidate.values.get("memory"),
                "measured": "final" if job in picked.finalists else "screening",
                "valid": row.latency_ms.valid,
                "licence": licence_of(candidate.name),
                "stages_ms": {k: stage.value for k, stage in (row.stages_ms or {}).items()},
                "verdict": verdict,
            }
        )
    return rows


def licence_of(name: str) -> str | None:
    """The licence that weights or a description name; None where nothing does."""
    try:
        if is_model_file(name):
            return read_description(Path(name).with_suffix(".json")).licence
        return load_metadata(weights_path(name)).get("licence") if is_weights(name) else None
    except VovnetError:
        return None


def choice_values(
    picked: Picked, data: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """The choice, with what was measured, where and on which data, as plain values.

    Raises ValueError if nothing was chosen.
    """
    choice = picked.decision.choice
    if choice is None:
        raise ValueError("nothing was chosen")
    job = picked.job_of(choice)
    row = picked.rows[job]
    return {
        "weights": choice.name,
        "format": _FORMATS.get(choice.runtime, "torch"),
        "runtime": choice.runtime,
        "precision": choice.precision,
        "imgsz": row.imgsz,
        "device": job.device,
        "licence": licence_of(choice.name),
        "objective": picked.objective,
        "limits": dict(picked.limits),
        "data": data,
        "split": split,
        "measured": {
            "accuracy": choice.values.get("accuracy"),
            "latency_ms": asdict(row.latency_ms),
            "end_to_end_ms": asdict(row.stages_ms["end_to_end"]) if row.stages_ms else None,
            "peak_memory_bytes": row.peak_memory_bytes.value,
            "joules_per_image": row.joules_per_image.value,
            "relative_error": row.relative_error,
        },
        "environment": row.environment,
        "picked": row.started,
    }


def config_text(picked: Picked, data: str | None = None, split: str | None = None) -> str:
    """`choice_values` as YAML with a line that says what it is."""
    head = "# Chosen by `vovnet pick` on the machine below.\n"
    return head + yaml.safe_dump(
        choice_values(picked, data, split), sort_keys=False, allow_unicode=True
    )


def read_accuracies(path: Path) -> dict[str, float]:
    """mAP (IoU .50:.95) by weights, from a file of what `vovnet val --json` printed: one or a list.

    Raises `VovnetError` for a file that cannot be read or holds something else.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results = results if isinstance(results, list) else [results]
        return {str(result["weights"]): float(result["map_50_95"]) for result in results}
    except OSError as error:
        raise VovnetError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise VovnetError(
            f"{path}: is not what vovnet val --json prints ({type(error).__name__}: {error})"
        ) from None
