"""results.csv, a line an epoch, as numbers."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def history(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """The metric of every evaluation so far, oldest first."""
    return [row[metric] for row in rows if row.get(metric) is not None]


def out_of_patience(rows: Sequence[Mapping[str, Any]], metric: str, patience: int) -> bool:
    """Whether the last `patience` evaluations brought nothing better than an earlier one."""
    scores = history(rows, metric)
    if not patience or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def _number(text: str | None) -> int | float | None:
    """What was written: a whole number, a number or nothing."""
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
