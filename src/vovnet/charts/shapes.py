"""What a drawing consists of: strokes, boxes, marks and texts, placed in pixels; y grows downward.

One layout serves the page (`svg`) and the pictures (`png`).
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stroke:
    """An open line through points; a "curve" has its own colour, `note` is shown on hovering."""

    points: tuple[tuple[float, float], ...]
    kind: Literal["grid", "thread", "leader", "roof", "bound", "curve", "faint"]
    colour: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Box:
    """A filled rectangle; `strength` (0..1) is how much of its colour shows."""

    x: float
    y: float
    width: float
    height: float
    kind: Literal["access", "work", "cell"]
    note: str
    strength: float = 1.0


@dataclass(frozen=True)
class Mark:
    """A measured point, and its spread along x if that is known.

    `sign` is matplotlib's marker and the same shape as an SVG path; an open mark is not sure.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    colour: str
    sign: tuple[str, str]
    note: str
    solid: bool = True


@dataclass(frozen=True)
class Text:
    """A text on the base line y; a turned one reads upward."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"]
    kind: Literal["tick", "title", "name", "roof"] = "tick"
    turned: bool = False


Shape = Stroke | Box | Mark | Text


@dataclass(frozen=True)
class Drawing:
    """A laid-out figure; later shapes lie on earlier ones."""

    title: str
    width: float
    height: float
    shapes: tuple[Shape, ...]
