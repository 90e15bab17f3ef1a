"""Rows of `vovnet bench` as CSV whose first columns are those of timm's benchmark results."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vovnet.files import write_atomically
from vovnet.lab.measurement import Measurement
from vovnet.lab.row import BenchRow

# Instruction sets that decide how fast a network runs.
_TELLING = {"avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8"}


def write_csv(path: Path, rows: Sequence[BenchRow]) -> None:
    """Write the rows, in order; raises `VovnetError` if the file cannot be written."""
    lines = [csv_row(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())


def csv_row(row: BenchRow) -> dict[str, Any]:
    """One line: timm's columns (rates of the batch, counts of one image), then ours in SI units.

    What was not measured is empty; `error` says why of a row that failed.
    """
    return {
        "model": row.model,
        "infer_samples_per_sec": row.images_per_s.value,
        "infer_step_time": row.latency_ms.value,
        "infer_batch_size": row.batch,
        "infer_img_size": row.imgsz,
        "infer_gmacs": _share(row.macs, row.batch * 1e9),
        "infer_macts": _share(row.activations, row.batch * 1e6),
        "param_count": _share(row.params, 1e6),
        "num_classes": row.num_classes,
        "device": row.device,
        "runtime": row.runtime,
        "precision": row.precision,
        **_spread("latency_ms", row.latency_ms),
        "end_to_end_ms": row.stages_ms["end_to_end"].value if row.stages_ms else None,
        "achieved_flops_per_s": row.achieved_flops_per_s.value,
        "matmul_flops_per_s": row.matmul_flops_per_s.value,
        "copy_bytes_per_s": row.copy_bytes_per_s.value,
        "peak_fraction": row.peak_fraction.value,
        "bound": row.roofline.bound if row.roofline else None,
        "flops": row.flops,
        "memory_access": row.memory_access,
        "bytes_moved": row.bytes_moved,
        "peak_memory_bytes": row.peak_memory_bytes.value,
        "joules_per_image": row.joules_per_image.value,
        "joules_per_image_net": row.joules_per_image_net.value,
        "idle_watts": row.idle_watts.value,
        "relative_error": row.relative_error,
        "correct": row.correct,
        "map_50_95": row.map_50_95,
        "map_50": row.map_50,
        **_machine(row.environment),
        "started": row.started,
        "error": row.error,
    }


def _machine(environment: dict[str, Any]) -> dict[str, Any]:
    """What a figure must not travel without: the processor, its instructions and the versions."""
    if not environment:
        return dict.fromkeys(("cpu", "instructions", "torch", "versions"))
    cpu = environment["cpu"]
    return {
        "cpu": f"{cpu['model']} ({cpu['cores']} cores)",
        "instructions": " ".join(flag for flag in cpu["flags"] if flag in _TELLING),
        "torch": environment["versions"]["torch"],
        "versions": " ".join(f"{k} {v}" for k, v in environment["versions"].items() if v),
    }


def _share(count: int | None, unit: float) -> float | None:
    return None if count is None else round(count / unit, 4)


def _spread(name: str, measurement: Measurement) -> dict[str, Any]:
    percentiles = {f"{name}_{p}": getattr(measurement, p) for p in ("p5", "p50", "p95", "p99")}
    return {**percentiles, f"{name}_n": measurement.n, f"{name}_valid": measurement.valid}
