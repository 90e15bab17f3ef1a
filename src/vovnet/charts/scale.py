"""Where numbers lie on an axis, which of them get a tick, and where labels go."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True)
class Scale:
    """Maps values low..high to positions start..end, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value, in pixels."""
        low, high, value = (
            (log10(v) for v in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def span(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Bounds around the values with some air; never empty."""
    low, high = min(values), max(values)
    if log:
        air = max((high / low) ** 0.06, 1.15)
        return low / air, high * air
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers in low..high: about five, or on a long logarithmic axis the decades."""
    if not log or high / low < 4:
        return _even_ticks(low, high)
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 3000 else (1,)
    marks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [mark for mark in marks if low <= mark <= high]


def _even_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** floor(log10(raw))
    step = power * next(s for s in (1, 2, 5, 10) if raw <= s * power)
    first, last = ceil(low / step), floor(high / step)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in the same order, at least `gap` apart, within low..high.

    Where they cannot all fit, they are as far apart as the room allows.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    placed: list[float] = []
    for rank, i in enumerate(order):  # downward: each below the one before
        placed.append(max(wanted[i], placed[-1] + gap if rank else low))
    ceiling = high
    for rank in reversed(range(len(placed))):  # and back up from the end of the room
        placed[rank] = min(placed[rank], ceiling)
        ceiling = placed[rank] - gap
    positions = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        positions[i] = position
    return positions
