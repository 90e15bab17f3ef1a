"""A drawing as inline SVG; its CSS classes get their colours from the page.

Everything that comes from outside, such as the name of a model or a class, is escaped.
"""

from html import escape

from vovnet.charts.shapes import Box, Drawing, Mark, Shape, Stroke, Text


def to_svg(drawing: Drawing) -> str:
    """One <svg> element, as wide as the place it is put in."""
    shapes = "\n".join(_element(shape) for shape in drawing.shapes)
    size = f"0 0 {drawing.width:.0f} {drawing.height:.0f}"
    label = escape(drawing.title)
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">\n{shapes}\n</svg>'


def _element(shape: Shape) -> str:
    if isinstance(shape, Stroke):
        return _stroke(shape)
    if isinstance(shape, Box):
        return (
            f'<rect class="{shape.kind}" x="{shape.x:.2f}" y="{shape.y:.1f}" '
            f'width="{shape.width:.2f}" height="{shape.height:.1f}"{_strength(shape)}>'
            f"{_title(shape.note)}</rect>"
        )
    return _mark(shape) if isinstance(shape, Mark) else _text(shape)


def _stroke(shape: Stroke) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    colour = f' stroke="{shape.colour}"' if shape.colour else ""
    end = f">{_title(shape.note)}</polyline>" if shape.note else "/>"
    return f'<polyline class="{shape.kind}" points="{points}"{colour}{end}'


def _strength(shape: Box) -> str:
    return "" if shape.strength == 1 else f' fill-opacity="{shape.strength:.2f}"'


def _mark(shape: Mark) -> str:
    shade = shape.colour
    look = "" if shape.solid else ' fill-opacity="0" stroke-dasharray="2 1.5"'
    whisker = ""
    if shape.low is not None and shape.high is not None:
        whisker = f'<path class="whisker" d="M{shape.low:.1f},{shape.y:.1f}H{shape.high:.1f}"/>'
    return (
        f'<g stroke="{shade}" fill="{shade}"{look}>{_title(shape.note)}{whisker}'
        f'<path class="mark" transform="translate({shape.x:.1f} {shape.y:.1f})" '
        f'd="{shape.sign[1]}"/></g>'
    )


def _text(shape: Text) -> str:
    x, y = f"{shape.x:.1f}", f"{shape.y:.1f}"
    turn = f' transform="rotate(-90 {x} {y})"' if shape.turned else ""
    return (
        f'<text class="{shape.kind}" x="{x}" y="{y}" text-anchor="{shape.anchor}"{turn}>'
        f"{escape(shape.text)}</text>"
    )


def _title(note: str) -> str:
    return f"<title>{escape(note)}</title>"
