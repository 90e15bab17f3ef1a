"""Files that grow while a job runs, and that a job that was killed goes on with."""

import os
from pathlib import Path

from vovnet.errors import VovnetError


class AppendFile:
    """A file of lines that is written as they arise, with `head` before and `tail` behind them.

    `mark`, where given, is how much of an earlier run's file is kept; what is behind it was not
    completed. Without it a file that is there already is not touched, unless `overwrite`.
    Raises `VovnetError` for what cannot be written.
    """

    def __init__(
        self,
        path: Path,
        head: str = "",
        tail: str = "",
        *,
        mark: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self._tail = path, tail.encode()
        again = mark is not None and path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            how = "r+b" if again else "wb" if overwrite else "xb"
            self._file = open(path, how, buffering=0)  # noqa: SIM115
            if again:
                self._file.truncate(self._before_tail(mark or 0))
                self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise VovnetError(f"{path}: cannot write: {error.strerror}") from None
        if not self._file.tell():
            self.write(head)
        self.empty = self._file.tell() == len(head.encode())

    def _before_tail(self, mark: int) -> int:
        size = len(self._tail)
        if not 0 < size <= mark:
            return mark
        self._file.seek(mark - size)
        return mark - size if self._file.read(size) == self._tail else mark

    def write(self, text: str) -> None:
        """Hand the text to the system, which keeps it even if this process is killed."""
        rest = memoryview(text.encode("utf-8", "surrogateescape"))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.close()
            raise VovnetError(f"{self.path}: cannot write: {error.strerror}") from None
        self.empty = False

    def size(self) -> int:
        """How many bytes are written: the mark of all that is complete."""
        return self._file.tell()

    def close(self) -> None:
        """Write the tail, which a later run takes off again."""
        if not self._file.closed:
            self.write(self._tail.decode())
            self._file.close()


def whole_lines(path: Path) -> int:
    """How much of a file is whole lines; 0 if there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise VovnetError(f"{path}: cannot be read: {error.strerror}") from None
    return 0
