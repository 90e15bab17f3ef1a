"""Where everything in a figure goes, in pixels: a list of strokes, boxes, marks and texts."""

from collections.abc import Iterator, Sequence
from typing import Literal

from vovnet.charts.scale import Scale, span, spread, ticks
from vovnet.charts.shapes import Box, Drawing, Mark, Shape, Stroke, Text
from vovnet.lab.count import LayerCount
from vovnet.lab.report.figures import Figure, LayerBars, Point, Scatter
from vovnet.lab.report.style import colour, mark

_LINE = 15.0  # pixels from one label to the next
_CHAR = 6.4  # pixels, about, of a character of a label
_TOP, _BOTTOM = 12.0, 46.0


def lay_out(figure: Figure) -> Drawing:
    """The figure as shapes; its size grows with what must be told apart."""
    return _lay_out_scatter(figure) if isinstance(figure, Scatter) else _lay_out_layers(figure)


def _lay_out_scatter(figure: Scatter) -> Drawing:
    groups: dict[str, list[Point]] = {}
    for point in sorted(figure.points, key=lambda p: (p.x, p.y)):
        groups.setdefault(point.name, []).append(point)
    margin = max(map(len, groups)) * _CHAR + 14
    by_name = bool(figure.y.categories)
    left, right = (margin, 14.0) if by_name else (58.0, margin + 18)
    width = max(640.0, left + right + 380)
    height = max(270.0, (_LINE + 5) * len(groups))
    x, y = _scales(figure, left, width - right, height)
    shapes: list[Shape] = [*_axes(figure, x, y)]
    if not by_name:
        lines = [points for points in groups.values() if len(points) > 1]
        shapes += [Stroke(tuple((x(p.x), y(p.y)) for p in line), "thread") for line in lines]
        shapes += _names([points[-1] for points in groups.values()], x, y, width - right)
    # What is not sure lies below what is.
    for p in sorted(figure.points, key=lambda p: p.valid):
        low, high = (None if v is None else x(v) for v in (p.low, p.high))
        look = colour(p.runtime), mark(p.precision)
        shapes.append(Mark(x(p.x), y(p.y), low, high, *look, p.note, p.valid))
    shapes += _roofs(figure, x, y)
    return Drawing(figure.title, width, height + _TOP + _BOTTOM, tuple(shapes))


def _scales(figure: Scatter, left: float, right: float, height: float) -> tuple[Scale, Scale]:
    ends = [end for roof in figure.roofs for end in roof.points]
    xs = [v for p in figure.points for v in (p.x, p.low, p.high) if v is not None]
    ys = [p.y for p in figure.points]
    x_span = span([*xs, *(end[0] for end in ends)], log=figure.x.log)
    x = Scale(*x_span, left, right, figure.x.log)
    bottom = _TOP + height
    if figure.y.categories:
        return x, Scale(-0.6, len(figure.y.categories) - 0.4, _TOP, bottom)
    y_span = span([*ys, *(end[1] for end in ends)], log=figure.y.log)
    return x, Scale(*y_span, bottom, _TOP, figure.y.log)


def _axes(figure: Scatter, x: Scale, y: Scale) -> Iterator[Shape]:
    bottom = max(y.start, y.end)
    for tick in ticks(x.low, x.high, log=x.log):
        yield Stroke(((x(tick), _TOP), (x(tick), bottom)), "grid")
        yield Text(x(tick), bottom + 16, f"{tick:g}", "middle")
    yield Text((x.start + x.end) / 2, bottom + 36, figure.x.label, "middle", "title")
    marks = [(tick, f"{tick:g}") for tick in ticks(y.low, y.high, log=y.log)]
    for at, text in list(enumerate(figure.y.categories)) or marks:
        yield Stroke(((x.start, y(at)), (x.end, y(at))), "grid")
        yield Text(x.start - 8, y(at) + 4, text, "end", "name" if figure.y.categories else "tick")
    if figure.y.label:
        yield Text(14, (y.start + y.end) / 2, figure.y.label, "middle", "title", turned=True)


def _roofs(figure: Scatter, x: Scale, y: Scale) -> Iterator[Shape]:
    for roof in figure.roofs:
        (x1, y1), (x2, y2) = ((x(a), y(b)) for a, b in roof.points)
        yield Stroke(((x1, y1), (x2, y2)), "roof")
        if y1 == y2:
            yield Text(x2, y2 - 6, roof.name, "end", "roof")
        else:
            yield Text(x1 + 10, y1 + 10, roof.name, "start", "roof")


def _names(last: Sequence[Point], x: Scale, y: Scale, right: float) -> Iterator[Shape]:
    """Every name in the right margin at the height of its last point, none on another."""
    low, high = sorted((y.start, y.end))
    heights = spread([y(p.y) for p in last], _LINE, low + 4, high - 2)
    for point, height in zip(last, heights, strict=True):
        x1, y1 = x(point.x), y(point.y)
        yield Stroke(((x1, y1), (right + 2, y1), (right + 12, height)), "leader")
        yield Text(right + 15, height + 4, point.name, "start", "name")


def _lay_out_layers(figure: LayerBars) -> Drawing:
    layers = figure.layers
    width, left, panel = 1120.0, 62.0, 150.0
    step = (width - left - 10) / len(layers)
    notes = [_layer_note(layer) for layer in layers]
    access = [layer.memory_access / 1e6 for layer in layers]
    least = [layer.lower_bound / 1e6 for layer in layers]
    macs = [layer.macs / 1e6 for layer in layers]
    upper = Scale(0, 1.05 * max(*access, *least), _TOP + panel, _TOP)
    lower = Scale(0, 1.05 * max(macs), upper.start + 24 + panel, upper.start + 24)
    shapes: list[Shape] = [
        *_bars(upper, access, notes, left, step, "access"),
        *_bars(lower, macs, notes, left, step, "work"),
        Text(left + 4, upper.end + 10, "memory access, M elements", "start", "title"),
        Text(left + 4, lower.end + 10, "multiply–accumulates, M", "start", "title"),
    ]
    for number, bound in enumerate(least):
        at = left + number * step
        shapes.append(Stroke(((at, upper(bound)), (at + step, upper(bound))), "bound"))
    shapes += _brackets(layers, left, step, lower.start)
    return Drawing(figure.title, width, lower.start + 32, tuple(shapes))


def _layer_note(layer: LayerCount) -> str:
    return (
        f"{layer.name}, {layer.kind}: {layer.macs / 1e6:.4g} M macs, memory access "
        f"{layer.memory_access / 1e6:.4g} M elements, {layer.ratio:.2f} times the least"
    )


def _bars(
    y: Scale,
    values: Sequence[float],
    notes: Sequence[str],
    left: float,
    step: float,
    kind: Literal["access", "work"],
) -> Iterator[Shape]:
    for tick in ticks(y.low, y.high, log=False):
        yield Stroke(((left, y(tick)), (left + step * len(values), y(tick))), "grid")
        yield Text(left - 6, y(tick) + 4, f"{tick:g}", "end")
    for number, (value, note) in enumerate(zip(values, notes, strict=True)):
        at, top = left + (number + 0.1) * step, y(value)
        yield Box(at, top, 0.8 * step, y.start - top, kind, note)


def _brackets(
    layers: Sequence[LayerCount], left: float, step: float, bottom: float
) -> Iterator[Shape]:
    """Which part of the network the bars above belong to; a name that has no room is left out."""
    for name, first, end in sections(layers):
        x1, x2 = left + first * step + 1, left + end * step - 1
        yield Stroke(((x1, bottom + 5), (x1, bottom + 9), (x2, bottom + 9), (x2, bottom + 5)),
                     "thread")  # fmt: skip
        if len(name) * _CHAR < x2 - x1:
            yield Text((x1 + x2) / 2, bottom + 23, name, "middle")


def sections(layers: Sequence[LayerCount]) -> list[tuple[str, int, int]]:
    """Runs of layers of one part of the network: (its name, first, one after the last).

    A part is told by the head of its layers' names, as short as tells more than two apart.
    """
    runs: list[tuple[str, int, int]] = []
    for depth in range(1, 5):
        runs = []
        for number, layer in enumerate(layers):
            head = ".".join(layer.name.split(".")[:depth])
            if runs and runs[-1][0] == head:
                runs[-1] = (head, runs[-1][1], number + 1)
            else:
                runs.append((head, number, number + 1))
        if len(runs) > 2:
            break
    return [(head.rpartition(".")[2], first, end) for head, first, end in runs]
