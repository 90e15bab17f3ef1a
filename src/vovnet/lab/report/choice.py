"""The page of `vovnet pick`: every candidate with its verdict, the front drawn, and the bench."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vovnet.files import write_atomically
from vovnet.lab.report.figures import Axis, Point, Roof, Row, Scatter
from vovnet.lab.report.page import render_page
from vovnet.lab.report.table import Cell, Line, Table

# Columns of numbers: key, title with its unit, hint.
_NUMBERS = (
    ("latency_ms", "latency, ms", "from JPEG to boxes where all candidates' is known"),
    ("map_50_95", "mAP", "COCO, IoU .50:.95"),
    ("peak_memory_mb", "peak MB", "peak memory"),
    ("joules_per_image", "J/image", "gross: idle power is in it"),
)
_ON_FRONT = ("chosen", "on the front")


def write_choice(path: Path, candidates: Sequence[Row], rows: Sequence[Row]) -> None:
    """Write the page of candidates as `vovnet.lab.pick.table` tells them, and of their bench rows;
    raises `VovnetError` if that cannot be done."""
    chart = front_chart(candidates)
    page = render_page(
        rows,
        title="vovnet pick",
        first=choice_table(candidates),
        charts=[chart] if chart.points else [],
    )
    write_atomically(path, page.encode())


def choice_table(candidates: Sequence[Row]) -> Table:
    """A line for each candidate: what it costs, its licence, and why it is taken or not."""
    titles = [(title, hint) for _, title, hint in _NUMBERS]
    head = [("model", ""), ("runtime", ""), ("precision", ""), *titles]
    head += [("licence", "as the weights or the description name it"), ("verdict", "")]
    return Table(tuple(head), tuple(map(_line, candidates)))


def front_chart(candidates: Sequence[Row]) -> Scatter:
    """Accuracy against latency, or memory where accuracy is not compared, with the front joined."""
    compared = all(row["map_compared"] for row in candidates if row["verdict"] in _ON_FRONT)
    key, axis = ("map_50_95", Axis("mAP, IoU .50:.95", log=False))
    if not compared:
        key, axis = "peak_memory_mb", Axis("peak memory, MB")
    shown = [row for row in candidates if row["latency_ms"] and row[key]]
    front = sorted((row["latency_ms"], row[key]) for row in shown if row["verdict"] in _ON_FRONT)
    return Scatter(
        "front",
        "The front",
        "Candidates that no other one beats in everything are joined; of the others the table says "
        "why they fell.",
        Axis("ms from JPEG to boxes"),
        axis,
        tuple(_point(row, key) for row in shown),
        (Roof("front", tuple(front)),) if len(front) > 1 else (),
    )


def _line(row: Row) -> Line:
    names = [Cell(str(row[key])) for key in ("model", "runtime", "precision")]
    numbers = [_number(row[key]) for key, _, _ in _NUMBERS]
    words = [Cell(str(row[key] or "–"), str(row[key] or "")) for key in ("licence", "verdict")]
    return Line((*names, *numbers, *words))


def _number(value: Any) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:.4g}", float(value))


def _point(row: Row, key: str) -> Point:
    x, y = float(row["latency_ms"]), float(row[key])
    note = f"{row['model']} {row['runtime']} {row['precision']}: {x:.4g} ms, {row['verdict']}"
    facts = row["model"], row["runtime"], row["precision"], bool(row["valid"])
    return Point(x, y, *facts, note)
