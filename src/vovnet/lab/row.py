"""One row of `vovnet bench`: a model in one runtime and precision, counted and measured."""

from dataclasses import asdict, dataclass, field
from typing import Any

from vovnet.lab.measurement import Measurement, not_measured

STAGES = ("decode", "prepare", "network", "postprocess", "end_to_end")

# Every measured quantity of a row and its unit.
UNITS = {
    "latency_ms": "ms",
    "images_per_s": "images/s",
    "achieved_flops_per_s": "FLOP/s",
    "matmul_flops_per_s": "FLOP/s",
    "copy_bytes_per_s": "byte/s",
    "peak_fraction": "1",
    "peak_memory_bytes": "byte",
    "joules_per_image": "J",
    "joules_per_image_net": "J",
    "idle_watts": "W",
}

# What a row says of everything that nothing has measured.
_PENDING = {name: not_measured(unit, "not part of this run") for name, unit in UNITS.items()}


@dataclass(frozen=True)
class Roofline:
    """Where a network lies under the roofs of its own run (Williams et al. 2009).

    `attainable_flops_per_s` is the lower of the matrix product's rate and intensity × the memory
    copy's rate; `bound` names which. `intensity_flops_per_byte` is flops / bytes_moved, every
    operator reading its inputs from memory and writing its output there.
    """

    intensity_flops_per_byte: float
    attainable_flops_per_s: float
    bound: str  # "compute" or "memory"


@dataclass(frozen=True)
class BenchRow:
    """What `vovnet bench --json` prints for one model × runtime × precision.

    - The counts are those of `vovnet.lab.Counts` for the whole batch; None where they cannot be
      counted, as for an ONNX file.
    - `latency_ms` is the network alone on one batch; `stages_ms` (detectors only) the way
      from the bytes of a JPEG to boxes, by stage, for one batch.
    - `matmul_flops_per_s` and `copy_bytes_per_s` are the machine's, taken in the same run;
      `peak_fraction` is achieved / matrix product.
    - `relative_error` is the L2 distance of the outputs from torch eager's in float32, relative
      to theirs; `correct` whether that is within the precision's bound. A row that is not correct
      is wrong, not fast.
    - `conditions` holds temperature and clocks before and after, None where they cannot be read.
    - A row that failed has `error`, and that as the reason of its measurements.
    """

    model: str
    imgsz: int | None
    num_classes: int | None
    batch: int
    device: str
    runtime: str
    precision: str
    params: int | None = None
    macs: int | None = None
    flops: int | None = None
    memory_access: int | None = None
    bytes_moved: int | None = None
    activations: int | None = None
    uncounted_ops: list[str] | None = None
    latency_ms: Measurement = _PENDING["latency_ms"]
    stages_ms: dict[str, Measurement] | None = None
    images_per_s: Measurement = _PENDING["images_per_s"]
    achieved_flops_per_s: Measurement = _PENDING["achieved_flops_per_s"]
    matmul_flops_per_s: Measurement = _PENDING["matmul_flops_per_s"]
    copy_bytes_per_s: Measurement = _PENDING["copy_bytes_per_s"]
    peak_fraction: Measurement = _PENDING["peak_fraction"]
    roofline: Roofline | None = None
    peak_memory_bytes: Measurement = _PENDING["peak_memory_bytes"]
    joules_per_image: Measurement = _PENDING["joules_per_image"]
    joules_per_image_net: Measurement = _PENDING["joules_per_image_net"]
    idle_watts: Measurement = _PENDING["idle_watts"]
    energy_note: str | None = None
    relative_error: float | None = None
    correct: bool | None = None
    map_50_95: float | None = None
    map_50: float | None = None
    error: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] | None = None
    started: str | None = None  # ISO 8601, UTC

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BenchRow":
        """The inverse of `to_dict`."""
        rebuilt: dict[str, Any] = {name: Measurement(**values[name]) for name in UNITS}
        stages, roofline = values["stages_ms"], values["roofline"]
        if stages is not None:
            rebuilt["stages_ms"] = {name: Measurement(**stage) for name, stage in stages.items()}
        if roofline is not None:
            rebuilt["roofline"] = Roofline(**roofline)
        return cls(**{**values, **rebuilt})

    @property
    def ranks(self) -> bool:
        """Whether the row may be compared with others: it ran, and gave no wrong answer."""
        return self.error is None and self.correct is not False


def unmeasured(why: str) -> dict[str, Any]:
    """Every measured field of a row that failed."""
    return {name: not_measured(unit, why) for name, unit in UNITS.items()}
