"""What verbs print: results on stdout, remarks and progress on stderr."""

import codecs
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

PLAIN = "vovnet.plain"  # how a stream that cannot print a character puts it
_LIKE = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "·": "*", "→": "->", "…": "...", "²": "^2", "⁶": "^6"}
    | {"≥": ">=", "≤": "<=", "±": "+-", "°": " deg ", "√": "sqrt "}
)


def _put_plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """A character that looks alike, or else its code: in the C locale, and file names of bytes."""
    if isinstance(error, UnicodeEncodeError):
        plain = error.object[error.start : error.end].translate(_LIKE)
        return plain.encode("ascii", "backslashreplace").decode(), error.end
    raise error


codecs.register_error(PLAIN, _put_plainly)


def note(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print("vovnet: " + "\\n".join(message.splitlines()), file=sys.stderr)


@contextmanager
def progress(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal; yields the function that moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda images: bar.advance(task, images)


def tracked(items: Iterable[Any], total: int) -> Iterator[Any]:
    """The items, with a bar that counts them."""
    with progress("images", total) as advance:
        for item in items:
            yield item
            advance(1)


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The row, but for some of its keys."""
    return {key: value for key, value in row.items() if key not in keys}


def print_table(rows: list[dict[str, Any]], *, fit: bool = False) -> None:
    """Columns of plain text, as wide as they need to be; numbers to the right. With `fit`, those
    that a terminal has no room for are left out, the last ones first."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    if fit and sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        while len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > room:
            widths.pop()
    for line in cells:
        padded = (
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=False))
        )
        print("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and abs(value) >= 1_000_000:
        return f"{value / 1e9:.3f} G" if abs(value) >= 1_000_000_000 else f"{value / 1e6:.2f} M"
    return str(value)
