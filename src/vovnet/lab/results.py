"""From samples to rows of `vovnet bench`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from vovnet.lab.competitor import Competitor, Job
from vovnet.lab.count import Counts
from vovnet.lab.energy import Energy, disagreement
from vovnet.lab.measurement import Measurement, invalidated, mapped, measured, not_measured
from vovnet.lab.roofline import place
from vovnet.lab.row import BenchRow, Roofline, unmeasured
from vovnet.lab.stages import by_stage
from vovnet.lab.table import BYTES
from vovnet.lab.target import Target

SECOND_STAGE = "the second stage, which images decide about, is not in what was measured"


@dataclass(frozen=True)
class Machine:
    """What all rows of a run share: the machine, its own rates, its idle power, the protocol."""

    environment: dict[str, Any]
    started: str
    protocol: str
    matmul: Measurement = field(default=not_measured("FLOP/s", "nothing could be opened"))
    copy: Measurement = field(default=not_measured("byte/s", "nothing could be opened"))
    idle: Measurement = field(default=not_measured("W", "nothing could be opened"))
    meter: str = ""
    least_seconds: float = 0.0  # of a window, for the meter to be trusted
    conditions: dict[str, Any] | None = None

    def shared(self) -> dict[str, Any]:
        """The fields that are the same in every row."""
        return {
            "matmul_flops_per_s": self.matmul,
            "copy_bytes_per_s": self.copy,
            "idle_watts": self.idle,
            "environment": self.environment,
            "conditions": self.conditions,
            "started": self.started,
        }


def failed_row(job: Job, target: Target | None, error: str, machine: Machine) -> BenchRow:
    """The row of a job that failed, with what is known all the same."""
    return BenchRow(
        **_identity(job, target, job.precision),
        **_counts(job, target, job.precision),
        **unmeasured(error) | machine.shared(),
        error=error,
    )


def finished_row(competitor: Competitor, machine: Machine) -> BenchRow:
    """The row of a competitor that had all its turns; peak memory is still to come."""
    job, target, samples = competitor.job, competitor.target, competitor.samples
    precision = competitor.runner.precision
    timed = target.counts(job.batch, BYTES[precision], timed=True)
    what = "first stage" if target.two_stages else "network"
    return BenchRow(
        **_identity(job, target, precision),
        **_counts(job, target, precision),
        **_speed(samples.seconds, job.batch, f"{what} alone, {machine.protocol}"),
        **_work(samples.seconds, samples.matmul, timed),
        roofline=_roofline(timed, precision, machine),
        **_energy(competitor, machine),
        **machine.shared(),
        stages_ms=_stages(competitor, machine.protocol),
        relative_error=competitor.error,
        correct=competitor.correct,
        map_50=target.map_50,
        map_50_95=target.map_50_95,
    )


def _identity(job: Job, target: Target | None, precision: str) -> dict[str, Any]:
    return {
        "model": job.model,
        "imgsz": target.imgsz if target else job.imgsz,
        "num_classes": target.num_classes if target else job.num_classes,
        "batch": job.batch,
        "device": job.device,
        "runtime": job.runtime,
        "precision": precision,
    }


def _counts(job: Job, target: Target | None, precision: str) -> dict[str, Any]:
    counts = target.counts(job.batch, BYTES[precision]) if target else None
    if counts is None:
        return {}
    names = ("params", "macs", "flops", "memory_access", "bytes_moved", "activations")
    values = {name: getattr(counts, name) for name in names}
    return {**values, "uncounted_ops": list(counts.uncounted_ops)}


def _speed(seconds: list[list[float]], batch: int, method: str) -> dict[str, Any]:
    latency = measured(mapped(seconds, lambda s: s * 1000), "ms", method)
    rates = mapped(seconds, lambda s: batch / s)
    rate = measured(rates, "images/s", f"batch / latency: {method}")
    return {"latency_ms": latency, "images_per_s": rate}


def _work(
    seconds: list[list[float]], matmul: list[list[float]], counts: Counts | None
) -> dict[str, Any]:
    """Achieved FLOP/s, and its fraction of the matrix product timed just before each window."""
    if counts is None or not counts.flops:
        reason = "operations could not be counted from shapes"
        return {
            "achieved_flops_per_s": not_measured("FLOP/s", reason),
            "peak_fraction": not_measured("1", reason),
        }
    flops = counts.flops
    achieved = mapped(seconds, lambda s: flops / s)
    fractions = [
        [rate / median(peak) for rate in window]
        for window, peak in zip(achieved, matmul, strict=True)
    ]
    return {
        "achieved_flops_per_s": measured(achieved, "FLOP/s", "flops / latency"),
        "peak_fraction": measured(
            fractions, "1", "achieved / matrix product timed just before each window"
        ),
    }


def _roofline(counts: Counts | None, precision: str, machine: Machine) -> Roofline | None:
    """Under the roof of a float32 matrix product, which says nothing about other precisions."""
    matmul, copy = machine.matmul.value, machine.copy.value
    if counts is None or precision != "fp32" or matmul is None or copy is None:
        return None
    return place(counts.flops, counts.bytes_moved, matmul, copy) if counts.bytes_moved else None


def _energy(competitor: Competitor, machine: Machine) -> dict[str, Any]:
    windows, seconds = competitor.samples.energy, competitor.samples.seconds
    batch = competitor.job.batch
    if not windows or machine.idle.value is None or competitor.target.two_stages:
        reason = machine.idle.reason or "no window was metered"
        if competitor.target.two_stages:
            reason = SECOND_STAGE
        missing = not_measured("J", reason)
        return {"joules_per_image": missing, "joules_per_image_net": missing}
    idle = machine.idle.value
    pairs = [(used, batch * len(calls)) for used, calls in zip(windows, seconds, strict=True)]
    gross = [[used.joules / images] for used, images in pairs]
    net = [[(used.joules - idle * used.seconds) / images] for used, images in pairs]
    note = disagreement(windows) or _too_short(windows, machine.least_seconds)
    found = {
        "joules_per_image": measured(gross, "J", f"{machine.meter}; idle power included"),
        "joules_per_image_net": measured(net, "J", f"{machine.meter}; less idle_watts × time"),
    }
    if note is not None:
        found = {key: invalidated(value, note) for key, value in found.items()}
    return found | {"energy_note": note}


def _too_short(windows: Sequence[Energy], least: float) -> str | None:
    """A line if a window was shorter than the meter needs."""
    shortest = min(window.seconds for window in windows)
    if shortest >= least:
        return None
    return f"a window of {shortest:.2f} s, the meter needs {least:g} s"


def _stages(competitor: Competitor, protocol: str) -> dict[str, Measurement] | None:
    if competitor.end_to_end is None:
        return None
    method = f"{competitor.end_to_end.picture}, {protocol}"
    return {
        stage: measured(windows, "ms", f"{stage}: {method}")
        for stage, windows in by_stage(competitor.samples.stages).items()
    }


def rank(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Most images per second first; then rows whose answer is wrong, then those that failed."""

    def key(row: BenchRow) -> tuple[int, float]:
        group = 2 if row.error is not None else int(not row.ranks)
        return group, -(row.images_per_s.value or 0.0)

    return sorted(rows, key=key)
