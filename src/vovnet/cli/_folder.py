"""The folders that runs land in."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count as count_from
from pathlib import Path

from vovnet.errors import VovnetError


@contextmanager
def run_folder(verb: str, name: str, given: Path | None = None) -> Iterator[Path]:
    """The given folder, or else runs/VERB/NAME, or the first NAME-2, NAME-3, ... that is free.

    A new one is made at once, so that two commands never share it, and taken away again, with the
    folders made around it, if nothing was written into it.
    """
    if given is not None:
        yield given
        return
    if Path(name).name != name:
        raise VovnetError(f"--name {name}: give a plain name, not a path")
    base = Path("runs") / verb
    made = [path for path in (base, base.parent) if not path.is_dir()]
    folder = _make_free(base, name)
    try:
        yield folder
    finally:
        with suppress(OSError):  # one is not empty
            for path in (folder, *made):
                path.rmdir()


@contextmanager
def shared_run_folder(
    verb: str, name: str, given: Path | None = None
) -> Iterator[tuple[Path, bool]]:
    """`run_folder` for the processes of one run, and whether the run goes on from a saved state.

    The first process chooses the folder for all, and leaves word of it: those that torchrun starts
    after one was lost take it again, and go on if the run had come to a state.
    """
    from vovnet.distributed import broadcast_object, is_main, leave, left

    if not is_main():
        yield broadcast_object(None)
        return
    before = left("folder")
    with run_folder(verb, name, Path(before) if before else given) as folder:
        leave("folder", str(folder))
        again = given is not None or (before and (folder / "state.safetensors").is_file())
        yield broadcast_object((folder, bool(again)))


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
