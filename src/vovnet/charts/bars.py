"""Bars that lie on their side: one named value a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vovnet.charts.lines import shortened
from vovnet.charts.scale import Scale, ticks
from vovnet.charts.shapes import Box, Drawing, Shape, Stroke, Text

_WIDTH, _TOP, _ROW, _CHAR = 460.0, 8.0, 28.0, 6.6
_LONGEST = 24


@dataclass(frozen=True)
class Row:
    """A name, its value, and what is written behind its bar."""

    name: str
    value: float
    text: str
    note: str


@dataclass(frozen=True)
class BarChart:
    """Rows on one axis that begins at 0; without `high` the longest bar gives its end."""

    key: str  # a file name
    title: str
    caption: str
    label: str
    rows: tuple[Row, ...]
    high: float | None = None


def lay_out_bars(chart: BarChart) -> Drawing:
    """The chart as shapes; its height grows with the rows."""
    left = max(len(shortened(row.name, _LONGEST)) for row in chart.rows) * _CHAR + 14
    room = max(len(row.text) for row in chart.rows) * _CHAR + 12
    high = chart.high or max((row.value for row in chart.rows), default=0.0) or 1.0
    scale = Scale(0, high, left, _WIDTH - room)
    bottom = _TOP + _ROW * len(chart.rows)
    shapes = [*_grid(scale, bottom), *_bars(chart.rows, scale)]
    shapes.append(Text((left + _WIDTH - room) / 2, bottom + 34, chart.label, "middle", "title"))
    return Drawing(chart.title, _WIDTH, bottom + 44, tuple(shapes))


def _grid(scale: Scale, bottom: float) -> Iterator[Shape]:
    for tick in ticks(scale.low, scale.high, log=False):
        yield Stroke(((scale(tick), _TOP), (scale(tick), bottom)), "grid")
        yield Text(scale(tick), bottom + 16, f"{tick:g}", "middle")


def _bars(rows: Sequence[Row], scale: Scale) -> Iterator[Shape]:
    for number, row in enumerate(rows):
        middle = _TOP + (number + 0.5) * _ROW
        yield Text(scale.start - 6, middle + 4, shortened(row.name, _LONGEST), "end", "name")
        end = scale(row.value)
        yield Box(scale.start, middle - 9, end - scale.start, 18, "access", row.note)
        yield Text(end + 5, middle + 4, row.text, "start", "name")
