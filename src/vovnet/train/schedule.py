"""How long a run is, and its learning rate on the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_WARM = 0.1  # share of a run by the clock that its warm-up takes at most
_RISE = 0.1  # of the peak, that one step by the clock may add


@dataclass(frozen=True)
class Length:
    """The length of a run: so many optimiser steps, or so many seconds by the clock."""

    steps: int | None = None
    seconds: float | None = None

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
    return peak * half_cosine((step - warmup) / max(1, total - warmup), final)


def half_cosine(share: float, final: float) -> float:
    """From 1 at the beginning to `final` at the end."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def warmed_by_clock(before: float, step: int, share: float, warmup: int) -> float:
    """How much of the peak a run by the clock has come to at a step, 0..1, where it had come to
    `before` at the last one; `share` of its time is over.

    The warm-up ends after `warmup` steps or a tenth of the time, but no step adds more than a tenth
    of the peak: how long steps are shows on the way only, and the first may wait for a compiler.
    """
    if not warmup:
        return 1.0
    return min(1.0, max((step + 1) / warmup, share / _WARM), before + _RISE)


def rate_by_clock(
    share: float,
    warmed: float,
    *,
    peak: float,
    final: float = 1.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> float:
    """The learning rate after a share of the time, warmed up so far; else as `learning_rate`."""
    if milestones:
        return peak * warmed * gamma ** sum(milestone <= share for milestone in milestones)
    return peak * warmed * half_cosine(share, final)
