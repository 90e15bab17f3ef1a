"""results.csv, a line an epoch, as numbers."""

import csv
import io
from pathlib import Path

from vovnet.errors import VovnetError
from vovnet.text import one_line, read_text

Rows = list[dict[str, int | float | None]]


def read_results(path: Path) -> Rows:
    """The lines of a run's results.csv. Raises `VovnetError` for what no run has written."""
    rows: Rows = []
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), 2):
            rows.append({key: _number(text) for key, text in row.items()})
            if not isinstance(rows[-1].get("epoch"), int):
                raise ValueError(f"line {number} has no epoch")
    except (ValueError, TypeError, csv.Error) as error:
        raise VovnetError(
            f"{one_line(path)}: not the results of a run ({one_line(error)}); delete or restore it"
        ) from None
    return rows


def _number(text: str | None) -> int | float | None:
    """What was written: a whole number, a number or nothing."""
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
