"""Drawings as PNG files: the page's layout, painted by matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vovnet.charts.shapes import Box, Drawing, Mark, Shape, Stroke
from vovnet.errors import MissingExtraError, VovnetError

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
    "curve": {"linewidth": 1.3},
    "faint": {"color": _SOFT, "linewidth": 0.7, "alpha": 0.4},
}
_FILLS = {"access": "#9cc3e0", "work": "#8f9aa6", "cell": "#0072b2"}
_HALO = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def write_drawings(folder: Path, drawings: Mapping[str, Drawing]) -> list[Path]:
    """Write every drawing as FOLDER/KEY.png; returns the files.

    Raises `MissingExtraError` without matplotlib, `VovnetError` if nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{key}.png", drawing) for key, drawing in drawings.items()]
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
        own: dict[str, Any] = {"color": shape.colour} if shape.colour else {}
        look = _STROKES[shape.kind] | own
        axes.plot(*zip(*shape.points, strict=True), zorder=layer, **look)
    elif isinstance(shape, Box):
        fill = _FILLS[shape.kind]
        corner = (shape.x, shape.height, shape.width, shape.y)
        axes.bar(*corner, align="edge", color=fill, zorder=layer, alpha=shape.strength)
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
    shade = shape.colour
    if shape.low is not None and shape.high is not None:
        line = ((shape.low, shape.high), (shape.y, shape.y))
        axes.plot(*line, color=shade, alpha=0.55, linewidth=2 * _POINT, zorder=layer)
    axes.plot(
        shape.x,
        shape.y,
        shape.sign[0],
        markersize=10 * _POINT,
        markerfacecolor=shade if shape.solid else "none",
        markeredgecolor=shade,
        zorder=layer,
    )
