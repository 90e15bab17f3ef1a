"""Rows of `vovnet bench` for tests of what is made from them; their figures are given."""

from collections.abc import Callable
from typing import Any

import pytest

from vovnet.lab.measurement import mapped, measured, not_measured
from vovnet.lab.row import BenchRow, Roofline, unmeasured

NO_COUNTER = "no energy counter can be read"
FLOPS, BYTES = 2_000_000_000, 100_000_000


def make_row(
    model: str = "vovnet39",
    ms: float = 50.0,
    *,
    runtime: str = "eager",
    precision: str = "fp32",
    joules: float | None = None,
    memory: float = 3e8,
    scale: float = 1.0,
    repeats: tuple[float, ...] = (1.0, 1.01, 0.99),
    **fields: Any,
) -> dict[str, Any]:
    """A row of a network of 2·scale GFLOP whose repeats last `ms` times `repeats`."""
    samples = [[ms * r * factor for factor in (0.98, 1.0, 1.03)] for r in repeats]
    flops = round(FLOPS * scale)
    energy = not_measured("J", NO_COUNTER)
    row = {
        "params": round(22e6 * scale),
        "macs": flops // 2,
        "flops": flops,
        "memory_access": 40_000_000,
        "bytes_moved": BYTES,
        "activations": 7_000_000,
        "uncounted_ops": [],
        "latency_ms": measured(samples, "ms", "three repeats"),
        "images_per_s": measured(mapped(samples, lambda v: 1e3 / v), "images/s", "1 / latency"),
        "achieved_flops_per_s": measured(
            mapped(samples, lambda v: flops / v * 1e3), "FLOP/s", "flops / latency"
        ),
        "matmul_flops_per_s": measured([[1.4e11, 1.5e11], [1.6e11, 1.5e11]], "FLOP/s", "1536³"),
        "copy_bytes_per_s": measured([[1e10, 1.1e10], [1.1e10, 1.2e10]], "byte/s", "copy"),
        "roofline": Roofline(flops / BYTES, 1.5e11, "compute"),
        "peak_memory_bytes": measured([[memory], [memory]], "byte", "peak of a child process"),
        "joules_per_image": energy if joules is None else measured([[joules]] * 2, "J", "NVML"),
        "joules_per_image_net": energy,
        "idle_watts": energy,
        "relative_error": 1e-6,
        "correct": True,
        "environment": {"cpu": {"model": "Test CPU", "cores": 2, "usable_cores": 2,
                                "torch_threads": 2, "flags": ["avx2"]}},
        "started": "2026-11-24T23:30:00+00:00",
    }  # fmt: skip
    what = {"imgsz": 224, "num_classes": 1000, "batch": 1, "device": "cpu"}
    named = {"model": model, "runtime": runtime, "precision": precision}
    return BenchRow(**(named | what | row | fields)).to_dict()


def make_failed_row(model: str, why: str, **fields: Any) -> dict[str, Any]:
    return make_row(model, error=why, correct=None, **unmeasured(why), **fields)


@pytest.fixture(scope="session")
def bench_row() -> Callable[..., dict[str, Any]]:
    return make_row


@pytest.fixture(scope="session")
def failed_row() -> Callable[..., dict[str, Any]]:
    return make_failed_row
