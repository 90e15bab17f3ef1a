"""Noticing that a training has gone wrong, before its numbers say so."""

import math
from dataclasses import dataclass

from vovnet.errors import VovnetError

_SMOOTHING = 0.95  # of the loss that is watched
_SETTLED = 20  # steps before it is watched
_RISE = 10.0  # over its least, and to twice its beginning: no good run does that


class DivergedError(VovnetError):
    """A loss term or a gradient became NaN or infinite, or the loss grew out of hand."""


@dataclass
class LossWatch:
    """Notices early that the loss grows, while its numbers are still finite: steps seen, and the
    smoothed loss now, when it had settled, and at its least since then."""

    steps: int = 0
    smooth: float = math.inf
    first: float = math.inf
    least: float = math.inf

    def add(self, loss: float) -> None:
        """Take a step's loss in; raises `DivergedError` when it has grown out of hand."""
        self.steps += 1
        known = self.steps > 1
        self.smooth = _SMOOTHING * self.smooth + (1 - _SMOOTHING) * loss if known else loss
        if self.steps < _SETTLED:
            return
        if self.steps == _SETTLED:
            self.first = self.least = self.smooth
        self.least = min(self.least, self.smooth)
        if self.smooth > max(_RISE * self.least, 2 * self.first):
            raise DivergedError(f"the loss rose from {self.least:.3g} to {self.smooth:.3g}")
