"""The report as one HTML page that needs nothing else: no request, no library, no network."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vovnet.charts.page import fill_page
from vovnet.charts.png import write_drawings
from vovnet.charts.svg import to_svg
from vovnet.errors import VovnetError
from vovnet.files import write_atomically
from vovnet.lab.report.figures import (
    Figure,
    Layers,
    Row,
    Scatter,
    is_usable,
    layer_bars,
    scatters,
    value,
)
from vovnet.lab.report.layout import lay_out
from vovnet.lab.report.style import PRECISION_MARKS, colour, mark
from vovnet.lab.report.table import Table, bench_table, stage_table


def write_report(
    path: Path, rows: Sequence[Row], *, layers: Layers | None = None, title: str = "vovnet bench"
) -> None:
    """Write the page of `render_page` to a file; raises `VovnetError` if that cannot be done."""
    write_atomically(path, render_page(rows, layers=layers, title=title).encode())


def write_figures(folder: Path, rows: Sequence[Row], *, layers: Layers | None = None) -> list[Path]:
    """Write every figure of the page as FOLDER/KEY.png; returns the files.

    Raises `MissingExtraError` without matplotlib, `VovnetError` if nothing can be drawn or written.
    """
    figures: list[Figure] = [*scatters(rows), *layer_bars(layers or {})]
    if not figures:
        raise VovnetError("no row was measured: there is nothing to draw")
    return write_drawings(folder, {figure.key: lay_out(figure) for figure in figures})


def render_page(
    rows: Sequence[Row],
    *,
    layers: Layers | None = None,
    title: str = "vovnet bench",
    first: Table | None = None,
    charts: Sequence[Scatter] = (),
) -> str:
    """The page for rows as `vovnet bench --json` prints them.

    `layers` gives the convolutions of some models, as `lab.count` counts them, for the bars layer
    by layer; `first` and `charts` come before what the rows tell. All text is escaped; the page's
    own security policy forbids every request and every script but its own. Raises `VovnetError`
    without rows.
    """
    if not rows:
        raise VovnetError("no rows to report; run vovnet bench first")
    energy = next((row["joules_per_image"]["reason"] for row in rows if is_usable(row)), None)
    return fill_page(
        "vovnet.lab.report",
        title=title,
        machines=_machines(rows),
        facts=_facts(rows),
        methods=_methods(rows),
        first=first,
        tables=[bench_table(rows), stage_table(rows)],
        figures=[(figure, to_svg(lay_out(figure))) for figure in (*charts, *scatters(rows))],
        layers=[(figure, to_svg(lay_out(figure))) for figure in layer_bars(layers or {})],
        no_energy=energy if all(value(r, "joules_per_image") is None for r in rows) else None,
        legend=_legend(rows),
    )


def _machines(rows: Iterable[Row]) -> list[list[tuple[str, str]]]:
    """Every machine that the rows come from, as (term, description) pairs."""
    machines: list[list[tuple[str, str]]] = []
    for row in rows:
        facts = _machine(row["environment"])
        if facts and facts not in machines:
            machines.append(facts)
    return machines


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    cpu = environment.get("cpu", {})
    memory = environment.get("memory_bytes")
    versions = environment.get("versions", {})
    gpus = [f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB"
            for gpu in environment.get("cuda", ())]  # fmt: skip
    facts = {
        "processor": cpu.get("model"),
        "cores": f"{cpu['usable_cores']} used of {cpu['cores']}, {cpu['torch_threads']} threads"
        if cpu
        else None,
        "instruction sets": ", ".join(cpu.get("flags", ())) or cpu.get("capability"),
        "memory": f"{memory / 2**30:.0f} GiB" if memory else None,
        "accelerators": "; ".join(gpus),
        "system": environment.get("platform"),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items() if v),
    }
    return [(term, text) for term, text in facts.items() if text]


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """What a reader who doubts the figures asks first."""
    usable = [row for row in rows if is_usable(row)]
    unsteady = sum(
        value(row, "latency_ms") is not None and not row["latency_ms"]["valid"] for row in usable
    )
    starts = sorted(row["started"][:16].replace("T", " ") for row in rows if row["started"])
    counts = [
        f"{len(usable)} measured",
        f"{unsteady} of them unsteady" if unsteady else "",
        f"{wrong} wrong" if (wrong := sum(r["correct"] is False for r in rows)) else "",
        f"{failed} failed" if (failed := sum(r["error"] is not None for r in rows)) else "",
    ]
    facts = [("rows", ", ".join(filter(None, counts)))]
    for term, key, unit in (
        ("float32 matrix product", "matmul_flops_per_s", "GFLOP/s"),
        ("memory copy", "copy_bytes_per_s", "GB/s"),
    ):
        rates = [v / 1e9 for row in usable if (v := value(row, key)) is not None]
        if rates:
            middle, low, high = median(rates), min(rates), max(rates)
            facts.append((term, f"{middle:.4g} {unit} (rows: {low:.4g} – {high:.4g})"))
    if starts:
        last = f" – {starts[-1]}" if starts[-1] != starts[0] else ""
        facts.append(("measured", f"{starts[0]}{last} UTC"))
    return facts


def _methods(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Every quantity and how it was measured, in the rows' own words, each way once."""
    methods: dict[tuple[str, str], None] = {}
    for row in rows:
        if row["error"] is None:
            for key, measured in row.items():
                if isinstance(measured, Mapping) and measured.get("value") is not None:
                    methods[key.replace("_", " "), measured["method"]] = None
    return list(methods)


def _legend(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(name, colour, path of the mark) of every runtime and precision in the rows."""
    usable = [row for row in rows if is_usable(row)]
    disc = PRECISION_MARKS["fp32"][1]
    runtimes = dict.fromkeys(row["runtime"] for row in usable)
    precisions = dict.fromkeys(row["precision"] for row in usable)
    return [(name, colour(name), disc) for name in runtimes] + [
        (name, "currentColor", mark(name)[1]) for name in precisions
    ]
