"""The folders that runs land in."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count as count_from
from pathlib import Path

from vovnet.errors import VovnetError


@contextmanager
def run_folder(verb: str, name: str, given: Path | None = None) -> Iterator[Path]:
    """The given folder, or else runs/VERB/NAME, or the first NAME-2, NAME-3, ... that is free.

    A new one is made at once, so that two commands never share it, and taken away again if
    nothing was written into it.
    """
    if given is not None:
        yield given
        return
    if Path(name).name != name:
        raise VovnetError(f"--name {name}: give a plain name, not a path")
    folder = _make_free(Path("runs") / verb, name)
    try:
        yield folder
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _make_free(base: Path, name: str) -> Path:
    for number in count_from(1):
        folder = base / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise VovnetError(f"{folder}: cannot be made: {error.strerror}") from None
        return folder
    raise AssertionError("the numbers do not end")
