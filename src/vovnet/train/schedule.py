"""How long a run is, and its learning rate on the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Steps until a run's pace is known: the first ones wait for compilers and workers.
_PACE = 10


@dataclass(frozen=True)
class Length:
    """The length of a run: so many optimiser steps, or so many seconds by the clock."""

    steps: int | None = None
    seconds: float | None = None

    def total(self, step: int, seconds: float) -> int:
        """Steps of the whole run; by the clock, what the pace so far promises.

        `step` and `seconds` have been done. Until its pace is known a clocked run seems endless.
        """
        if self.steps is not None:
            return self.steps
        assert self.seconds is not None
        if step < _PACE or not seconds:
            return 10**9
        return max(step, round(step * self.seconds / seconds))

    def share(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0..1."""
        done = step / self.steps if self.steps else seconds / (self.seconds or math.inf)
        return min(1.0, done)


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    warmup: int,
    final: float = 1.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> float:
    """Linear warm-up over `warmup` steps, then down from `peak`.

    With `milestones`, shares of the run, the rate is multiplied by `gamma` at each; without, it
    follows half a cosine to `peak`·`final`. `step` counts from 0. A warm-up longer than a tenth of
    the run is cut to that.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    if milestones:
        # In steps, rounded: 0.7 of 1000 steps is step 700, whatever 0.7 is in binary.
        return peak * gamma ** sum(round(share * total) <= step for share in milestones)
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
