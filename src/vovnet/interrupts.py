"""Control-C from the first import on; imports nothing itself that takes time."""

import signal
from types import FrameType

_heard: list[int] = []


def listen() -> None:
    """Remember a Control-C besides raising KeyboardInterrupt, unless they are ignored or taken.

    An import that is interrupted may well raise something else, or blame a missing package.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _hear)


def interrupted() -> bool:
    """Whether one was heard."""
    return bool(_heard)


def _hear(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    raise KeyboardInterrupt
