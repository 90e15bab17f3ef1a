"""The errors that users see: one line that says what is wrong, where, and the mend."""

import difflib
import re
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_PARTIAL = 3
EXIT_REFUSED = 4
EXIT_STOPPED = 130

_SHOWN = 20  # names of a table that a message lists; timm has over a thousand

# Import names of what only the extra "train" brings.
_TRAIN = ("torch", "torchvision", "safetensors", "filelock", "jinja2")

# How the allocators of torch and of other runtimes say it.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|failed to allocate|bad_alloc", re.I
)
# How a DataLoader says that one of its processes was killed, which the system does for memory.
_KILLED_WORKER = re.compile(r"worker .* signal: killed", re.I)


class VovnetError(Exception):
    """An error that is the input's, not the program's; printed as one line, no traceback."""

    exit_code = EXIT_BAD_INPUT


class RefusedError(VovnetError):
    """What a gate does not let pass; nothing was written."""

    exit_code = EXIT_REFUSED


class UnknownNameError(VovnetError):
    """A name that is not in a table; the message offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(dict.fromkeys(known))
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        if more:  # those most alike first, so that what is hidden is not what was meant
            known.sort(key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())
        all_known = f"Known: {', '.join(known[:_SHOWN])}{more}."
        hint = f"Did you mean {' or '.join(near)}?" if near else all_known
        super().__init__(f"unknown {kind} {name!r}. {hint}")


class ImageError(VovnetError):
    """An image that cannot be read or is refused; the message starts with its path."""


class DataError(VovnetError):
    """A dataset that cannot be used; the message names the file and the object."""


class WeightsError(VovnetError):
    """A weights file that cannot be read, or does not fit its model."""


class MissingExtraError(VovnetError):
    """A package that is needed and not installed, and the extra that brings it, if one does.

    `wanted`, if given, is what needs it, in the user's words.
    """

    def __init__(self, package: str, extra: str | None = None, wanted: str = "") -> None:
        what = f"'vovnet[{extra}]'" if extra else package
        needed = f", and {wanted} needs it" if wanted else ""
        super().__init__(f"{package} is not installed{needed}; install it with: pip install {what}")


def missing_extra(error: BaseException) -> MissingExtraError | None:
    """What a failed import of a package of the extra "train" means to users; None for another."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    return MissingExtraError(package, "train") if package in _TRAIN else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or a device, whoever noticed."""
    text = str(error)
    return isinstance(error, MemoryError) or bool(
        _OUT_OF_MEMORY.search(text) or is_killed_worker(error)
    )


def is_killed_worker(error: BaseException) -> bool:
    """Whether a process that makes batches was killed: the host's memory ran out, not a step's."""
    return bool(_KILLED_WORKER.search(str(error)))
