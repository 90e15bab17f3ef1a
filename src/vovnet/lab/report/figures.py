"""What the report's figures show, as plain values: rows of `vovnet bench` in, charts out.

`layout` places these values; it never looks at a row. Rows are the dictionaries that
`vovnet bench --json` prints.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vovnet.lab.count import LayerCount

Row = Mapping[str, Any]
Layers = Mapping[str, Iterable[LayerCount]]  # model -> its convolutions


@dataclass(frozen=True)
class Axis:
    """What an axis measures, with its unit; `categories` are names at 0, 1, 2, ... from the top."""

    label: str
    log: bool = True
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One measurement: `name` is its direct label, `low` and `high` its p5 and p95 along x."""

    x: float
    y: float
    name: str
    runtime: str
    precision: str
    valid: bool
    note: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Roof:
    """A bound in the roofline plot: the straight line from the first point to the last."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scatter:
    """A chart of points; the points of one name are joined and labelled once."""

    key: str  # a file name
    title: str
    caption: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    roofs: tuple[Roof, ...] = ()


@dataclass(frozen=True)
class LayerBars:
    """The convolutions of one model in order of execution."""

    key: str
    title: str
    caption: str
    layers: tuple[LayerCount, ...]


Figure = Scatter | LayerBars


def value(row: Row, key: str) -> float | None:
    """The value of a row's `Measurement`, None where there is none."""
    measured = row.get(key)
    return None if measured is None else measured["value"]


def is_usable(row: Row) -> bool:
    """Whether a row may be compared: it was measured, and its outputs are right."""
    return row["error"] is None and row["correct"] is not False


def row_names(rows: Sequence[Row]) -> list[str]:
    """The model of every row, with its input size or batch where a model has several."""
    names = []
    for row in rows:
        same = [other for other in rows if other["model"] == row["model"]]
        size = f" @{row['imgsz']}" if len({r["imgsz"] for r in same}) > 1 else ""
        batch = f" ×{row['batch']}" if len({r["batch"] for r in same}) > 1 else ""
        names.append(f"{row['model']}{size}{batch}")
    return names


def scatters(rows: Sequence[Row]) -> list[Scatter]:
    """Every chart of points that the rows can fill, in the order of the page."""
    named = [(name, row) for name, row in zip(row_names(rows), rows, strict=True) if is_usable(row)]
    charts = [_latency(named), *_paper_panels(named)]
    for device in dict.fromkeys(row["device"] for _, row in named):
        charts.append(_roofline([pair for pair in named if pair[1]["device"] == device], device))
    return [chart for chart in charts if chart.points]


def layer_bars(layers: Layers) -> list[LayerBars]:
    """One chart for every model, given the layers that `lab.count` counted."""
    return [
        LayerBars(
            key=f"layers-{number}",
            title=f"{model}, layer by layer",
            caption=(
                "Bars: memory access of each convolution (elements, the paper's equation 1), in "
                "order of execution; lines: the least that a convolution of so many operations "
                "needs (section 2.2). Below: its multiply–accumulates."
            ),
            layers=tuple(rows),
        )
        for number, (model, rows) in enumerate(layers.items(), 1)
    ]


def _latency(named: Sequence[tuple[str, Row]]) -> Scatter:
    fastest: dict[str, float] = {}
    for name, row in named:
        if (ms := value(row, "latency_ms")) is not None:
            fastest[name] = min(ms, fastest.get(name, ms))
    order = sorted(fastest, key=lambda name: fastest[name])
    points = []
    for name, row in named:
        if value(row, "latency_ms") is not None:
            points.append(_point(name, row, "latency_ms", 1.0, float(order.index(name))))
    return Scatter(
        "latency",
        "Latency of the network, by runtime",
        "Median per batch; the bar spans p5 to p95 of all timings, nothing clipped.",
        Axis("ms per batch"),
        Axis("", log=False, categories=tuple(order)),
        tuple(points),
    )


# The panels of the paper's figures 3 and 4: (key, title, measurement, scale, axis).
_PANELS = (
    ("speed", "Speed", "images_per_s", 1.0, "images/s"),
    ("computing", "Computing efficiency", "achieved_flops_per_s", 1e-9, "GFLOP/s achieved"),
    ("energy", "Energy", "joules_per_image", 1.0, "J/image, gross"),
)


def _paper_panels(named: Sequence[tuple[str, Row]]) -> list[Scatter]:
    """Accuracy, where every row has it, or else parameters, against each cost."""
    accurate = all(row["map_50_95"] is not None for _, row in named)
    field, scale, axis = (
        ("map_50_95", 1.0, Axis("mAP, IoU .50:.95", log=False))
        if accurate
        else ("params", 1e-6, Axis("parameters, M"))
    )
    charts = []
    for key, title, measurement, x_scale, x_label in _PANELS:
        points = [
            _point(name, row, measurement, x_scale, row[field] * scale)
            for name, row in named
            if row[field] is not None and value(row, measurement) is not None
        ]
        caption = (
            f"{'Accuracy' if accurate else 'Parameters'} against {title.lower()}, as in the "
            "paper's figures 3 and 4. One line a model, one mark a runtime and precision."
        )
        charts.append(Scatter(key, title, caption, Axis(x_label), axis, tuple(points)))
    return charts


def _roofline(named: Sequence[tuple[str, Row]], device: str) -> Scatter:
    points = []
    for name, row in named:
        achieved = value(row, "achieved_flops_per_s")
        roofline = row["roofline"]
        if achieved is not None and roofline is not None:
            note = _note(name, row, f"{achieved / 1e9:.4g} GFLOP/s, bound by {roofline['bound']}")
            x = roofline["intensity_flops_per_byte"]
            points.append(_bare_point(x, achieved / 1e9, name, row, "achieved_flops_per_s", note))
    caption = (
        "Roofs: float32 matrix product and memory copy of the same run. Bytes are counted without "
        "cache or fusion, operations without Winograd's savings, and bf16 and int8 have higher "
        "roofs: a point above a roof is no error."
    )
    return Scatter(
        f"roofline-{device.replace(':', '')}",
        f"Roofline, {device}",
        caption,
        Axis("operations per byte moved, FLOP/B"),
        Axis("GFLOP/s achieved"),
        tuple(points),
        _roofs([row for _, row in named], [point.x for point in points]),
    )


def _roofs(rows: Iterable[Row], intensities: Sequence[float]) -> tuple[Roof, ...]:
    rows = list(rows)
    peaks = [v for row in rows if (v := value(row, "matmul_flops_per_s")) is not None]
    copies = [v for row in rows if (v := value(row, "copy_bytes_per_s")) is not None]
    if not (peaks and copies and intensities):
        return ()
    peak, copy = median(peaks) / 1e9, median(copies) / 1e9
    ridge = peak / copy
    left, right = min([ridge, *intensities]) / 2, max([ridge, *intensities]) * 2
    return (
        Roof(f"copy {copy:.3g} GB/s", ((left, left * copy), (ridge, peak))),
        Roof(f"matrix product {peak:.4g} GFLOP/s", ((ridge, peak), (right, peak))),
    )


def _point(name: str, row: Row, key: str, scale: float, y: float) -> Point:
    measured = row[key]
    x = measured["value"] * scale
    low, high = (None if measured[p] is None else measured[p] * scale for p in ("p5", "p95"))
    spread = f" (p5 {low:.4g}, p95 {high:.4g})" if low is not None and high is not None else ""
    unit = f"{key.replace('_', ' ')} {x:.4g}{spread}"
    return _bare_point(x, y, name, row, key, _note(name, row, unit), low, high)


def _bare_point(
    x: float,
    y: float,
    name: str,
    row: Row,
    key: str,
    note: str,
    low: float | None = None,
    high: float | None = None,
) -> Point:
    valid = bool(row[key]["valid"])
    return Point(x, y, name, row["runtime"], row["precision"], valid, note, low, high)


def _note(name: str, row: Row, what: str) -> str:
    return f"{name}, {row['runtime']} {row['precision']}: {what}"
