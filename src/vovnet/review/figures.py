"""The figures of the page, from plain values: what each shows, and the words below it."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from vovnet.charts.bars import BarChart, Row
from vovnet.charts.cells import CellChart
from vovnet.charts.lines import COLOURS, Axis, Bar, Line, LineChart
from vovnet.review.calibration import ScoreBin
from vovnet.review.confidence import Best, Curve
from vovnet.review.confusion import Confusion
from vovnet.review.errors import ErrorKind
from vovnet.review.results import Rows
from vovnet.review.sizes import SizeBin

Chart = LineChart | BarChart | CellChart

_LOG_FROM = 20.0  # greatest over least, from which on an axis is logarithmic


def training_charts(rows: Rows) -> list[LineChart]:
    """Losses, accuracy, learning rate, speed and waiting over the epochs, as far as there are."""
    keys = list(rows[-1]) if rows else []
    losses = [key for key in keys if key.startswith("loss_")]
    figures = [key for key in keys if "map_" in key or key.endswith("_ap")]
    charts = (
        _over_epochs(rows, "loss", "Loss", losses, "mean of the epoch",
                     "Each term of the loss, the mean over the epoch's steps."),
        _over_epochs(rows, "accuracy", "Accuracy on the validation images", figures, "AP",
                     "Of the averaged weights, at every evaluation."),
        _over_epochs(rows, "rate", "Learning rate", ["lr"], "learning rate",
                     "At the epoch's last step."),
        _over_epochs(rows, "speed", "Speed", ["images_per_s"], "images/s",
                     "Training images a second, waiting for data included."),
        _over_epochs(rows, "wait", "Waiting for data", ["data_wait"], "share of the time",
                     "Near 0 the processor is busy; above 0.1 more --workers or --cache may help."),
    )  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _over_epochs(
    rows: Rows, key: str, title: str, columns: Sequence[str], label: str, caption: str
) -> LineChart | None:
    lines = []
    for column, colour in zip(columns, _colours(len(columns)), strict=True):
        points = [
            (float(row["epoch"] or 0), float(value))
            for row in rows
            if (value := row.get(column)) is not None and math.isfinite(value)
        ]
        if points:
            lines.append(Line(column.removeprefix("loss_"), points, colour))
    values = [y for line in lines for _, y in line.points]
    if not values:
        return None
    log = min(values) > 0 and max(values) > _LOG_FROM * min(values)
    y = Axis(label, None if log else min(0.0, *values), log=log)
    return LineChart(key, title, caption, Axis("epoch", whole=True), y, tuple(lines))


def _colours(count: int) -> list[str | None]:
    """A colour for each of a few, none where they are too many to be told apart."""
    return [*COLOURS[:count]] if count <= len(COLOURS) else [None] * count


def precision_recall(precision: np.ndarray, curves: Sequence[Curve]) -> LineChart:
    """`precision` is 101×classes at COCO's recalls 0, 0.01 ... 1, -1 where nothing is labelled."""
    recalls = np.linspace(0, 1, 101)
    measured = [i for i, curve in enumerate(curves) if curve.count]
    colours = _colours(len(measured))
    lines = [
        Line(curves[i].name, _points(recalls, precision[:, i]), colour)
        for i, colour in zip(measured, colours, strict=True)
    ]
    if len(measured) > 1:
        mean = precision[:, measured].mean(1)
        lines.append(Line("mean of the classes", _points(recalls, mean), main=True))
    caption = (
        "At an IoU of 0.5, interpolated as COCO does: at each recall the best precision at that "
        "recall or a higher one. The area under a curve is the class's AP at 0.5."
    )
    x, y = Axis("recall", 0, 1), Axis("precision", 0, 1.02)
    return LineChart("precision_recall", "Precision over recall", caption, x, y, tuple(lines))


def f1_chart(all_together: Curve, curves: Sequence[Curve], best: Best) -> LineChart:
    """F1 over the confidence, of every class and of all detections together."""
    measured = [curve for curve in curves if curve.count]
    colours = _colours(len(measured))
    lines = [
        Line(curve.name, _points(curve.conf, curve.f1), colour)
        for curve, colour in zip(measured, colours, strict=True)
    ]
    if len(measured) > 1:
        lines.append(Line("all together", _points(all_together.conf, all_together.f1), main=True))
    caption = (
        "F1 weighs false detections and missed objects alike, at an IoU of 0.5. All together: "
        "every detection counts the same, whatever its class."
    )
    rule = None if best.conf is None else (best.conf, f"best at {best.conf:.2f}: {best.f1:.3f}")
    x, y = Axis("confidence", 0, 1), Axis("F1", 0, 1.02)
    return LineChart("f1", "F1 over the confidence", caption, x, y, tuple(lines), rule=rule)


def _points(xs: np.ndarray, ys: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def confusion_chart(found: Confusion, conf: float) -> CellChart:
    """Objects against detections."""
    counts = found.counts
    whole = np.maximum(counts.sum(1, keepdims=True), 1)
    shares = counts / whole
    others = f" {found.left_out} classes with fewer mistakes are counted together." * bool(
        found.left_out
    )
    caption = (
        f"Above the confidence {conf:.2f}, at an IoU of 0.5. The last column: objects that were "
        f"missed; the last row: detections where no object is. Shades: shares of a row.{others}"
    )
    return CellChart(
        "confusion",
        "What is taken for what",
        caption,
        "object",
        "detected as",
        found.names,
        found.names,
        _table(shares),
        tuple(tuple(str(n) if n else "" for n in row) for row in counts.tolist()),
        tuple(
            tuple(
                f"{found.names[a]} as {found.names[b]}: {n} ({shares[a, b]:.0%})"
                for b, n in enumerate(row)
            )
            for a, row in enumerate(counts.tolist())
        ),
    )


def _table(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def error_chart(kinds: Iterable[ErrorKind], conf: float) -> BarChart:
    """What each kind of mistake costs."""
    rows = tuple(
        Row(kind.name, kind.cost, f"{kind.cost:.3f} · {kind.count}", kind.meaning) for kind in kinds
    )
    caption = (
        "Bars: how much AP at an IoU of 0.5 would be won if only these mistakes were mended (TIDE, "
        f"over all scores). Behind them: the cost, and how many there are above {conf:.2f}."
    )
    return BarChart("errors", "Kinds of mistakes", caption, "cost in AP at 0.5", rows)


def size_chart(bins: Iterable[SizeBin], conf: float, coco: str) -> BarChart:
    """The share of objects that is found, by their size."""
    rows = tuple(
        Row(one.name, one.found / one.objects, f"{one.found} of {one.objects}",
            f"{one.found / one.objects:.0%} found")
        for one in bins
    )  # fmt: skip
    caption = (
        f"Above the confidence {conf:.2f}, at an IoU of 0.5; a size is the root of an object's "
        f"area in pixels of the original image. {coco}"
    )
    return BarChart("sizes", "Found, by size", caption, "share of the objects", rows, high=1.0)


def calibration_chart(bins: Iterable[ScoreBin]) -> LineChart:
    """The share of right detections over their score."""
    bars = tuple(
        Bar(one.low, one.high, one.right,
            f"{one.count} detections, mean score {one.score:.2f}: {one.right:.0%} right")
        for one in bins
    )  # fmt: skip
    caption = (
        "Columns: the share of the detections with such scores that is right at an IoU of 0.5. "
        "Where they end at the line, a score is a probability; below it, the detector is too sure."
    )
    x, y = Axis("score", 0, 1), Axis("share that is right", 0, 1.02)
    return LineChart("calibration", "What a score means", caption, x, y, bars=bars, diagonal=True)
