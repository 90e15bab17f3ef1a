"""Line charts: curves over a common axis, with a legend below that says which is which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vovnet.charts.scale import Scale, span, ticks
from vovnet.charts.shapes import Box, Drawing, Mark, Shape, Stroke, Text

# Okabe and Ito's colours with Tol's wine and olive: told apart by colour-blind readers, and seen on
# white and on the dark page.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#882255", "#999933"),
)
DISC = ("o", "M-2.6,0a2.6,2.6 0 1,0 5.2,0a2.6,2.6 0 1,0 -5.2,0z")

_WIDTH, _HEIGHT = 460.0, 230.0  # pixels of the drawing, and of the plot in it
_TOP, _LEFT, _RIGHT = 12.0, 66.0, 14.0
_CHAR, _ROW, _KEY = 7.4, 18.0, 22.0  # of a legend: a character, a row, a line's sample
_LONGEST = 26  # characters of a name in a legend
_FEW = 20  # points: so few are marked one by one

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A curve; without a colour it is one of many, thin and not in the legend. The "main" one is
    what the chart is about."""

    name: str
    points: Points
    colour: str | None = None
    main: bool = False


@dataclass(frozen=True)
class Bar:
    """A column under the curves, from `start` to `end` along x."""

    start: float
    end: float
    height: float
    note: str


@dataclass(frozen=True)
class Axis:
    """What an axis measures; without bounds it is as long as its values demand. One that counts is
    marked at whole numbers only."""

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class LineChart:
    """Curves and columns; `rule` is a value of x that is pointed out, `diagonal` y = x."""

    key: str  # a file name
    title: str
    caption: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    rule: tuple[float, str] | None = None
    diagonal: bool = False


def lay_out_lines(chart: LineChart) -> Drawing:
    """The chart as shapes; its height grows with its legend."""
    bottom = _TOP + _HEIGHT
    xs = [x for line in chart.lines for x, _ in line.points]
    xs += [end for bar in chart.bars for end in (bar.start, bar.end)]
    ys = [y for line in chart.lines for _, y in line.points] + [bar.height for bar in chart.bars]
    x = Scale(*_bounds(chart.x, xs), _LEFT, _WIDTH - _RIGHT, chart.x.log)
    y = Scale(*_bounds(chart.y, ys), bottom, _TOP, chart.y.log)
    shapes: list[Shape] = [*_axes(chart, x, y)]
    for bar in chart.bars:
        left, right, top = x(bar.start), x(bar.end), y(bar.height)
        shapes.append(Box(left + 1, top, right - left - 2, bottom - top, "access", bar.note))
    if chart.diagonal:
        shapes.append(Stroke(((x(x.low), y(x.low)), (x(x.high), y(x.high))), "thread"))
    for line in sorted(chart.lines, key=lambda line: (line.main, line.colour is not None)):
        shapes += _curve(line, x, y)
    if chart.rule is not None:
        shapes += _rule(*chart.rule, x, y)
    legend = list(_legend([line for line in chart.lines if line.main or line.colour], bottom + 54))
    height = max((shape.y for shape in legend if isinstance(shape, Text)), default=bottom + 36)
    return Drawing(chart.title, _WIDTH, height + 10, (*shapes, *legend))


def _bounds(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    low, high = span(values, log=axis.log) if values else (0.1, 1.0)
    return low if axis.low is None else axis.low, high if axis.high is None else axis.high


def _axes(chart: LineChart, x: Scale, y: Scale) -> Iterator[Shape]:
    for tick in ticks(x.low, x.high, log=x.log):
        if chart.x.whole and tick % 1:
            continue
        yield Stroke(((x(tick), y.end), (x(tick), y.start)), "grid")
        yield Text(x(tick), y.start + 16, f"{tick:g}", "middle")
    for tick in ticks(y.low, y.high, log=y.log):
        yield Stroke(((x.start, y(tick)), (x.end, y(tick))), "grid")
        yield Text(x.start - 6, y(tick) + 4, f"{tick:g}", "end")
    yield Text((x.start + x.end) / 2, y.start + 34, chart.x.label, "middle", "title")
    yield Text(12, (y.start + y.end) / 2, chart.y.label, "middle", "title", turned=True)


def _curve(line: Line, x: Scale, y: Scale) -> Iterator[Shape]:
    kind: Literal["roof", "curve", "faint"] = (
        "roof" if line.main else "curve" if line.colour else "faint"
    )
    if len(line.points) > 1:
        places = tuple((x(a), y(b)) for a, b in line.points)
        yield Stroke(places, kind, None if line.main else line.colour, line.name)
    if len(line.points) <= _FEW and kind == "curve":
        for a, b in line.points:
            note = f"{line.name}: {b:.4g} at {a:g}"
            yield Mark(x(a), y(b), None, None, line.colour or "", DISC, note)


def _rule(at: float, label: str, x: Scale, y: Scale) -> Iterator[Shape]:
    yield Stroke(((x(at), y.end), (x(at), y.start)), "bound", None, label)
    right = x(at) > (x.start + x.end) / 2
    yield Text(x(at) + (-5 if right else 5), y.end + 12, label, "end" if right else "start", "roof")


def _legend(lines: Sequence[Line], top: float) -> Iterator[Shape]:
    """Names beside a sample of their line, in rows as wide as the drawing."""
    if len(lines) < 2:
        return
    at, row = _LEFT, top
    for line in lines:
        name = shortened(line.name, _LONGEST)
        width = _KEY + len(name) * _CHAR + 12
        if at > _LEFT and at + width > _WIDTH:
            at, row = _LEFT, row + _ROW
        kind: Literal["roof", "curve"] = "roof" if line.main else "curve"
        yield Stroke(((at, row - 4), (at + 16, row - 4)), kind, None if line.main else line.colour)
        yield Text(at + _KEY, row, name, "start", "name")
        at += width


def shortened(name: str, longest: int) -> str:
    """A name, cut where it is too long to be drawn."""
    return name if len(name) <= longest else name[: longest - 1] + "…"
