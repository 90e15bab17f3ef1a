"""Writing files so that nothing is lost."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vovnet.errors import VovnetError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one, never a part.

    Raises `VovnetError` if the disk is full or the folder cannot be written; the old file stays.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path, mend: str = "") -> Generator[BinaryIO, None, None]:
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
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # there may be none
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        kept = "; the previous file is kept" if os.path.exists(path) else ""
        raise VovnetError(f"{path}: cannot write: {error.strerror}{kept}{mend}") from None
