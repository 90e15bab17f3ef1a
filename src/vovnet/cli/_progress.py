"""How far a long job is, on one line of the terminal; imports nothing that takes time."""

import sys
import time

_EACH = 0.2  # seconds between two looks


class Progress:
    """ "120/5000  35.2/s  2 min left" on stderr, where that is a terminal. `total` may be None."""

    def __init__(self, total: int | None) -> None:
        self._shown = sys.stderr.isatty()
        self._total, self._count = total, 0
        self._begun = time.monotonic()
        self._last = self._begun

    def advance(self) -> None:
        """One more is done."""
        self._count += 1
        now = time.monotonic()
        if self._shown and now - self._last >= _EACH:
            self._last = now
            self._write(progress_line(self._count, self._total, now - self._begun))

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
        text += f"  {_span(max(0, total - count) / rate)} left"
    return text


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
