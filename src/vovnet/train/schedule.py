"""Learning rate over a run."""

import math


def learning_rate(step: int, total: int, *, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine from `peak` to `peak`·`final`.

    `step` counts from 0. A warm-up longer than a tenth of the run is cut to that.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
