"""The tables of the page: what every cell says, how it sorts, and why a figure is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vovnet.lab.report.figures import Row, row_names
from vovnet.lab.row import STAGES


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the number it sorts by, a hint, and the footnote of what is missing."""

    text: str
    sort: float | str | None = None
    hint: str = ""
    note: int | None = None
    valid: bool = True


@dataclass(frozen=True)
class Line:
    """One row of a table; `state` is "", "failed", "wrong" or "unsteady", `reason` says why."""

    cells: tuple[Cell, ...]
    state: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """Head (title, hint) and lines, the footnotes that cells point to, and what no row has."""

    head: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    footnotes: tuple[str, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()  # quantity, and the reason why


_NAMED = (("model", ""), ("runtime", ""), ("precision", "what it really computes in"))
_POWER = "{:.1e}".format

# (title, hint, measurement, factor from its unit)
_MEASURED = (
    ("latency, ms", "the network alone on one batch: median", "latency_ms", 1.0),
    ("images/s", "batch / latency", "images_per_s", 1.0),
    ("GFLOP/s", "counted operations / time; Winograd does fewer", "achieved_flops_per_s", 1e-9),
    ("of matmul", "achieved / float32 matrix product of the same run", "peak_fraction", 1.0),
    ("peak MB", "peak memory, as the hint of a cell says", "peak_memory_bytes", 1e-6),
    ("J/image", "gross: idle power is in it", "joules_per_image", 1.0),
    ("net J/image", "idle power subtracted", "joules_per_image_net", 1.0),
)
_COUNTED = (
    ("params, M", "parameters", "params", 1e-6),
    ("macs, G", "multiply–accumulates of the batch (the paper's FLOPs)", "macs", 1e-9),
    ("access, M", "memory access, elements (the paper's equation 1)", "memory_access", 1e-6),
)


def bench_table(rows: Sequence[Row]) -> Table:
    """One line for every row; a quantity that no row has is told below instead of in a column."""
    usable = [row for row in rows if row["error"] is None]
    shown = [m for m in _MEASURED if any(row[m[2]]["value"] is not None for row in usable)]
    absent = {(m[0], row[m[2]]["reason"]) for m in _MEASURED if m not in shown for row in usable}
    notes: list[str] = []
    columns = _columns(shown, notes, any(row["map_50_95"] is not None for row in rows))
    lines = [
        _line(name, row, [cell for _, _, cell in columns])
        for name, row in zip(row_names(rows), rows, strict=True)
    ]
    head = [*_NAMED, *((title, hint) for title, hint, _ in columns)]
    return Table(tuple(head), tuple(lines), tuple(notes), tuple(sorted(absent)))


def stage_table(rows: Sequence[Row]) -> Table | None:
    """From a JPEG's bytes to boxes, stage by stage; None if no row has stages."""
    notes: list[str] = []
    cells = [
        lambda row, stage=stage: _measured(row["stages_ms"].get(stage), 1.0, notes)
        for stage in STAGES
    ]
    lines = [
        _line(name, row, cells)
        for name, row in zip(row_names(rows), rows, strict=True)
        if row["stages_ms"] and row["error"] is None
    ]
    head = [*_NAMED, *((f"{stage.replace('_', ' ')}, ms", "median") for stage in STAGES)]
    return Table(tuple(head), tuple(lines), tuple(notes)) if lines else None


def _columns(
    shown: Sequence[tuple[str, str, str, float]], notes: list[str], accuracy: bool
) -> list[tuple[str, str, Callable[[Row], Cell]]]:
    """(title, hint, the cell of a row) of every column after the names."""
    columns: list[tuple[str, str, Callable[[Row], Cell]]] = [
        (title, hint, lambda row, key=key, scale=scale: _measured(row[key], scale, notes))
        for title, hint, key, scale in shown
    ]
    columns[1:1] = [
        ("p5 – p95", "of all timings, ms; nothing clipped", _spread),
        ("p99", "ms", lambda row: _number(row["latency_ms"]["p99"])),
    ]
    columns += [
        (title, hint, lambda row, key=key, scale=scale: _number(row[key], scale))
        for title, hint, key, scale in _COUNTED
    ]
    error = "relative L2 distance of the outputs from torch eager float32"
    columns.append(("error", error, lambda row: _number(row["relative_error"], form=_POWER)))
    if accuracy:
        form = "{:.3f}".format
        columns.append(("mAP", "COCO, IoU .50:.95", lambda row: _number(row["map_50_95"], 1, form)))
    return columns


def _line(name: str, row: Row, cells: Sequence[Callable[[Row], Cell]]) -> Line:
    state, reason = _state(row)
    measured = () if state == "failed" else (cell(row) for cell in cells)
    return Line((*_names(name, row), *measured), state, reason)


def _spread(row: Row) -> Cell:
    latency = row["latency_ms"]
    if latency["value"] is None:
        return Cell("–")
    return Cell(f"{_digits(latency['p5'])} – {_digits(latency['p95'])}", latency["p95"])


def _names(name: str, row: Row) -> tuple[Cell, Cell, Cell]:
    device = "" if row["device"] == "cpu" else f" on {row['device']}"
    return (
        Cell(name, name),
        Cell(row["runtime"] + device, row["runtime"]),
        Cell(row["precision"], row["precision"]),
    )


def _state(row: Row) -> tuple[str, str]:
    if row["error"] is not None:
        return "failed", row["error"]
    if row["correct"] is False:
        return "wrong", "another answer than torch eager float32: wrong, not fast"
    if row["latency_ms"]["value"] is not None and not row["latency_ms"]["valid"]:
        return "unsteady", "the repeats disagree: measure again on a quiet machine"
    return "", ""


def _measured(measured: Mapping[str, Any] | None, scale: float, notes: list[str]) -> Cell:
    if measured is None:
        return Cell("–")
    if measured["value"] is None:
        reason = measured["reason"]
        if reason not in notes:
            notes.append(reason)
        return Cell("not measured", hint=reason, note=notes.index(reason) + 1)
    number = measured["value"] * scale
    hint = f"n = {measured['n']}; {measured['method']}"
    return Cell(_digits(number), number, hint, valid=bool(measured["valid"]))


def _digits(number: float) -> str:
    """Three digits, all of them printed, so that a column lines up."""
    return f"{number:.0f}" if abs(number) >= 99.95 else f"{number:#.3g}"


def _number(
    number: float | None, scale: float = 1.0, form: Callable[[float], str] = _digits
) -> Cell:
    return Cell("–") if number is None else Cell(form(number * scale), number * scale)
