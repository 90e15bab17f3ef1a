"""The report's figures as PNG files: the page's layout, painted by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.lab.report.figures import Figure, Layers, Row, layer_bars, scatters
from vovnet.lab.report.layout import Box, Drawing, Mark, Shape, Stroke, lay_out
from vovnet.lab.report.style import colour, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 96  # a point of matplotlib is 1/72 inch, a pixel of the layout 1/96
_POINT = 72 / _DPI
_HEAD = 34.0  # pixels above the drawing, for its title
_INK, _SOFT, _LINE = "#1b1f24", "#5c6570", "#d9dee4"

_STROKES: dict[str, dict[str, Any]] = {
    "grid": {"color": _LINE, "linewidth": 0.8},
    "thread": {"color": _SOFT, "linewidth": 0.8, "alpha": 0.45},
    "leader": {"color": _SOFT, "linewidth": 0.8, "alpha": 0.35},
    "roof": {"color": _INK, "linewidth": 1.2},
    "bound": {"color": "#d55e00", "linewidth": 1.2},
}
_FILLS = {"access": "#9cc3e0", "work": "#8f9aa6"}
_HALO = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def write_figures(folder: Path, rows: Sequence[Row], *, layers: Layers | None = None) -> list[Path]:
    """Write every figure of the page as FOLDER/KEY.png; returns the files.

    Raises `MissingExtraError` without matplotlib, `VovnetError` if nothing can be drawn or written.
    """
    figures: list[Figure] = [*scatters(rows), *layer_bars(layers or {})]
    if not figures:
        raise VovnetError("no row was measured: there is nothing to draw")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{figure.key}.png", lay_out(figure)) for figure in figures]
    except OSError as error:
        raise VovnetError(f"{folder}: cannot write: {error.strerror}") from None


def _write(path: Path, drawing: Drawing) -> Path:
    try:
        from matplotlib.figure import Figure as Canvas  # not pyplot: it keeps global state
    except ImportError:
        raise MissingExtraError("matplotlib", "bench") from None
    width, height = drawing.width, drawing.height + _HEAD
    canvas = Canvas(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(drawing.height, -_HEAD))
    axes.axis("off")
    axes.text(14, -12, drawing.title, size=11, weight="bold", color=_INK, parse_math=False)
    for layer, shape in enumerate(drawing.shapes, 1):
        _paint(axes, shape, layer)
    canvas.savefig(path, dpi=2 * _DPI)
    return path


def _paint(axes: "Axes", shape: Shape, layer: int) -> None:
    if isinstance(shape, Stroke):
        axes.plot(*zip(*shape.points, strict=True), zorder=layer, **_STROKES[shape.kind])
    elif isinstance(shape, Box):
        fill = _FILLS[shape.kind]
        corner = (shape.x, shape.height, shape.width, shape.y)
        axes.bar(*corner, align="edge", color=fill, zorder=layer)
    elif isinstance(shape, Mark):
        _paint_mark(axes, shape, layer)
    else:
        axes.text(
            shape.x,
            shape.y,
            shape.text,
            size=11.5 * _POINT,
            color=_SOFT if shape.kind == "tick" else _INK,
            ha=_ANCHORS[shape.anchor],
            va="baseline",
            rotation=90 if shape.turned else 0,
            parse_math=False,  # a name may hold a $
            zorder=layer,
            bbox=_HALO if shape.kind == "roof" else None,
        )


def _paint_mark(axes: "Axes", shape: Mark, layer: int) -> None:
    shade = colour(shape.point.runtime)
    if shape.low is not None and shape.high is not None:
        line = ((shape.low, shape.high), (shape.y, shape.y))
        axes.plot(*line, color=shade, alpha=0.55, linewidth=2 * _POINT, zorder=layer)
    axes.plot(
        shape.x,
        shape.y,
        mark(shape.point.precision)[0],
        markersize=10 * _POINT,
        markerfacecolor=shade if shape.point.valid else "none",
        markeredgecolor=shade,
        zorder=layer,
    )
