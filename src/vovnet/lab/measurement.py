"""One measured quantity: its value and spread and how it was obtained, or why it was not."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

SPREAD = 0.10  # relative; the repeats of a measurement that is called valid differ by less
_MANY = 4  # repeats, of which one may be disturbed


@dataclass(frozen=True)
class Measurement:
    """A quantity in `unit`; `value` is None exactly when `reason` says why.

    `value` is the median of `n` samples and p5, p50, p95, p99 are their percentiles, nothing
    clipped, unless `method` says otherwise. `valid` tells whether the repeats agree (see
    `measured`).
    """

    value: float | None
    unit: str
    method: str
    n: int = 0
    p5: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    valid: bool = False
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise ValueError("a measurement has either a value or the reason why it has none")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measured(
    repeats: Sequence[Sequence[float]], unit: str, method: str, *, spread: float = SPREAD
) -> Measurement:
    """The measurement whose samples were taken in several repeats, each a list of them.

    Valid if there are two repeats or more and their medians lie within `spread` of the median of
    all samples; of four or more only the middle half (the interquartile range): one disturbed
    repeat does not spoil the others, a drift does. Raises ValueError without samples, or with one
    that is no finite number.
    """
    samples = np.concatenate([np.asarray(repeat, dtype=float) for repeat in repeats])
    if not (samples.size and np.isfinite(samples).all()):
        raise ValueError(f"{unit}: no samples, or some are not finite")
    p5, p50, p95, p99 = (float(v) for v in np.percentile(samples, (5, 50, 95, 99)))
    medians = [float(np.median(repeat)) for repeat in repeats if len(repeat)]
    few = len(medians) < _MANY
    low, high = np.percentile(medians, (0, 100) if few else (25, 75))
    within = "range" if few else "interquartile range"
    return Measurement(
        value=p50,
        unit=unit,
        method=f"{method}; valid if the {within} of the repeats' medians "
        f"({len(medians)} here) is at most {spread:.0%} of the median",
        n=samples.size,
        p5=p5,
        p50=p50,
        p95=p95,
        p99=p99,
        valid=len(medians) > 1 and bool(high - low <= spread * abs(p50)),
    )


def not_measured(unit: str, reason: str, method: str = "") -> Measurement:
    """The measurement that could not be made, and why."""
    return Measurement(None, unit, method, reason=" ".join(reason.split()))


def mapped(
    repeats: Sequence[Sequence[float]], change: Callable[[float], float]
) -> list[list[float]]:
    """Every sample changed, the repeats kept apart: seconds to images/s, say."""
    return [[change(sample) for sample in repeat] for repeat in repeats]


def invalidated(measurement: Measurement, why: str) -> Measurement:
    """The same, no longer valid; `method` tells why."""
    return replace(measurement, valid=False, method=f"{measurement.method}; not valid: {why}")
