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


@contextmanager
def shared_run_folder(
    verb: str, name: str, given: Path | None = None, *, again: bool = False
) -> Iterator[tuple[Path, bool]]:
    """`run_folder` for the processes of one run, and whether the run goes on from a saved state.

    The first process chooses the folder for all. After a restart (`again`) it is the newest folder
    of that name, and the run goes on if it had come to a state; else it begins anew there.
    """
    from vovnet.distributed import broadcast_object, is_main

    newest = _newest(Path("runs") / verb, name) if again and given is None and is_main() else given
    if not is_main():
        yield broadcast_object(None)
        return
    with run_folder(verb, name, newest) as folder:
        resumable = newest is not None and (
            given is not None or (newest / "state.safetensors").is_file()
        )
        yield broadcast_object((folder, resumable))


def _newest(base: Path, name: str) -> Path | None:
    numbered = [base / name, *base.glob(f"{name}-[0-9]*")]
    return max(filter(Path.is_dir, numbered), key=lambda path: path.stat().st_mtime, default=None)


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
