"""A table of shares as shaded cells: rows against columns."""

from collections.abc import Iterator
from dataclasses import dataclass

from vovnet.charts.lines import shortened
from vovnet.charts.shapes import Box, Drawing, Shape, Text

_CHAR, _LONGEST = 6.6, 16
_LEAST, _WIDTH = 22.0, 460.0  # a cell's side at least, and the whole where that leaves room
_STRONGEST = 0.7  # of the colour, so that what stands on it can be read


@dataclass(frozen=True)
class CellChart:
    """Named rows and columns; of every cell its share of the row (0..1), its text and a note."""

    key: str  # a file name
    title: str
    caption: str
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, ...], ...]


def lay_out_cells(chart: CellChart) -> Drawing:
    """The table as shapes; it grows with its rows and columns."""
    left = 22 + max(len(shortened(name, _LONGEST)) for name in chart.rows) * _CHAR + 8
    top = 22 + max(len(shortened(name, _LONGEST)) for name in chart.columns) * _CHAR + 8
    longest = max(len(text) for row in chart.texts for text in row) * _CHAR + 6
    side = max(_LEAST, longest, (_WIDTH - left - 8) / len(chart.columns))
    height = max(_LEAST, min(side, 40.0))
    width = left + side * len(chart.columns) + 8
    bottom = top + height * len(chart.rows)
    shapes = [*_heads(chart, left, top, side, height), *_cells(chart, left, top, side, height)]
    shapes.append(Text((left + width) / 2, 14, chart.column_label, "middle", "title"))
    shapes.append(Text(12, (top + bottom) / 2, chart.row_label, "middle", "title", turned=True))
    return Drawing(chart.title, width, bottom + 8, tuple(shapes))


def _heads(
    chart: CellChart, left: float, top: float, side: float, height: float
) -> Iterator[Shape]:
    for number, name in enumerate(chart.rows):
        y = top + (number + 0.5) * height + 4
        yield Text(left - 6, y, shortened(name, _LONGEST), "end", "name")
    for number, name in enumerate(chart.columns):
        x = left + (number + 0.5) * side + 4
        yield Text(x, top - 6, shortened(name, _LONGEST), "start", "name", turned=True)


def _cells(
    chart: CellChart, left: float, top: float, side: float, height: float
) -> Iterator[Shape]:
    for row, shares in enumerate(chart.shares):
        for column, share in enumerate(shares):
            x, y, note = left + column * side, top + row * height, chart.notes[row][column]
            strength = 0.03 + (_STRONGEST - 0.03) * share
            yield Box(x + 0.5, y + 0.5, side - 1, height - 1, "cell", note, strength)
            if text := chart.texts[row][column]:
                yield Text(x + side / 2, y + height / 2 + 4, text, "middle", "name")
