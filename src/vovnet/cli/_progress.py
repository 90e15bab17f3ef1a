"""How far a long job is, on one line of the terminal; imports nothing that takes time."""

import sys
import time
from collections.abc import Callable

from vovnet.text import duration

_EACH = 0.2  # seconds between two looks


class Progress:
    """A line such as 120/5000 35.2/s 2 min left on stderr, where that is a terminal.

    `total`, asked for only there, may be None; `skipped` tells how many of it an earlier run has
    done.
    """

    def __init__(self, total: Callable[[], int | None], skipped: Callable[[], int]) -> None:
        self._shown = sys.stderr.isatty()
        self._total, self._count = total() if self._shown else None, 0
        self._skipped = skipped
        self._begun = time.monotonic()
        self._last = self._begun

    def advance(self) -> None:
        """One more is done."""
        self._count += 1
        now = time.monotonic()
        if self._shown and now - self._last >= _EACH:
            self._last = now
            total = None if self._total is None else self._total - self._skipped()
            self._write(progress_line(self._count, total, now - self._begun))

    def clear(self) -> None:
        """Make room for another line, or for what comes after."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def progress_line(count: int, total: int | None, seconds: float) -> str:
    """What is done, how fast, and how long the rest will take."""
    rate = count / max(seconds, 1e-6)
    text = f"{count}" + f"/{total}" * (total is not None) + f"  {rate:.1f}/s"
    if total is not None and count:
        text += f"  {duration(max(0, total - count) / rate)} left"
    return text
