"""Text from files that anybody may have written: bounded, decoded, and told on one line; times in
words."""

from pathlib import Path

from vovnet.errors import DataError

MAX_TEXT_BYTES = 10_000_000
_LONGEST = 1000  # characters of one piece of a message


def one_line(text: object) -> str:
    """`text` with line breaks and other unprintable characters escaped, cut where it is endless."""
    full = str(text)
    if full.isprintable() and len(full) <= _LONGEST:
        return full
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in full[:_LONGEST]
    )
    return shown if len(full) <= _LONGEST else f"{shown}… ({len(full)} characters)"


def short(value: object) -> str:
    """A value as Python writes it, cut to what fits into a message."""
    return one_line(repr(value)[:51])[:50]


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it: "40 s", "12 min", "3.5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of an annotation file; `DataError` if it is missing, no file, or over `limit`."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "no such file"
            raise DataError(f"{one_line(path)}: {what}; check the path")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{one_line(path)}: cannot be read ({one_line(error)})") from error
    if len(data) > limit:
        raise DataError(f"{one_line(path)}: over {limit} bytes; is this an annotation file?")
    return data


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Like `read_bytes`, decoded as UTF-8 with or without a byte-order mark."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{one_line(path)}: not UTF-8 text ({error}); save it as UTF-8") from error
