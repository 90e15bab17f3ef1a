"""Writing files so that nothing is lost."""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vovnet.errors import VovnetError


def cache_folder() -> Path:
    """Where lies what is kept between commands: $VOVNET_CACHE, else $XDG_CACHE_HOME/vovnet, else
    ~/.cache/vovnet."""
    if own := os.environ.get("VOVNET_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vovnet"


def write_atomically(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file so that it is either the old one or the whole new one, never a part.

    Raises `VovnetError` if the disk is full or the folder cannot be written, or if there is an
    old one and `replace` is false; the old file stays.
    """
    with open_atomically(path, replace=replace) as file:
        file.write(data)


@contextmanager
def open_atomically(
    path: Path, mend: str = "", *, replace: bool = True
) -> Generator[BinaryIO, None, None]:
    """A file to write that takes the place of `path` when the block is left without an error.

    Raises `VovnetError` like `write_atomically`; `mend` ends its message.
    """
    temporary = path.with_name(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not replace:  # takes the name, which fails if another has it, whatever its case
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # there may be none
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        kept = "; the previous file is kept" if os.path.exists(path) else ""
        raise VovnetError(f"{path}: cannot write: {error.strerror}{kept}{mend}") from None


def refuse_replacing(
    option: str, outputs: Iterable[Path], inputs: Iterable[Path] = (), *, overwrite: bool
) -> None:
    """Raise `VovnetError`, beginning with `option`, if one of the files to write is there already.

    With `overwrite` that is allowed, but never for an input: by whatever name, through links of
    both kinds, and where the file system ignores case.
    """
    there = [path for path in outputs if os.path.lexists(path)]
    if not there:
        return
    protected = {_identity(path) for path in inputs} - {None}
    for path in there:
        if _identity(path) in protected:
            raise VovnetError(f"{option}: {path} is an input itself; give another name")
        if os.path.isdir(path):
            raise VovnetError(f"{option}: {path} is a folder; give another name")
    if not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise VovnetError(
            f"{option}: {there[0]}{more} is there already; "
            "give another name, or --overwrite to replace it"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever it is called; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
