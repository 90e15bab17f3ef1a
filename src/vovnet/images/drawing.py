"""Detections drawn on their image."""

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from vovnet.images.orientation import upright

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont


class Drawable(Protocol):
    """What is drawn: `vovnet.Detections`."""

    @property
    def boxes(self) -> np.ndarray:
        """N×4 xyxy in pixels of the picture."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """N."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """N, indices of `names`."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        ...

    @property
    def tracks(self) -> np.ndarray | None:
        """N, where objects are followed through a video."""
        ...

    @property
    def masks(self) -> np.ndarray | None:
        """N×H×W bool."""
        ...


Colour = tuple[int, int, int]
_MARGIN = 3  # pixels around a caption's text
CAPTIONS = ("auto", "on", "off")


def draw_detections(
    image: Image.Image,
    detections: Drawable,
    *,
    captions: str = "on",
    line_width: int | None = None,
    colour: str = "class",
) -> Image.Image:
    """A copy of an RGB image with a box and "name score" for every detection, best on top.

    Masks are laid over the picture half transparent. What EXIF turns for display is turned first,
    as `Detector.detect` does. `captions` "auto" leaves out those that would bury an object, and
    draws thinner boxes around small ones; `line_width` is that of all, in pixels. `colour` is each
    "class"'s own, or each "instance"'s: of objects that are followed, each track's.
    """
    from PIL import ImageDraw, ImageFont  # only if something is drawn: they take time to import

    colours = _colours(detections, colour)
    # Masks of one class have a hue each in any case, so that neighbours can be told apart.
    tints = colours if len(detections.names) > 1 else _colours(detections, "instance")
    canvas = _with_masks(upright(image), detections, tints)
    draw = ImageDraw.Draw(canvas)
    unit = max(image.size) / 640
    width = max(2, round(3 * unit))
    auto = captions == "auto"
    font = ImageFont.load_default(size=max(11, round(16 * unit)))
    for i in reversed(range(len(detections.labels))):
        label = int(detections.labels[i])
        box = [float(v) for v in detections.boxes[i]]
        thin = min(width, max(1, int(min(box[2] - box[0], box[3] - box[1]) / 8)))
        draw.rectangle(box, outline=colours[i], width=line_width or (thin if auto else width))
        text = f"{detections.names[label]} {detections.scores[i]:.2f}"
        if detections.tracks is not None:
            text = f"#{detections.tracks[i]} {text}"
        plate = _plate(draw, box, text, font)
        if captions == "on" or (auto and not _buries(plate, detections.boxes)):
            _caption(draw, plate, text, colours[i], font)
    return canvas


class Framed(NamedTuple):
    """A box to draw: xyxy in pixels of the picture, its colour, and its caption, if it has one."""

    box: tuple[float, float, float, float]
    colour: tuple[int, int, int]
    caption: str = ""


def draw_framed(image: Image.Image, framed: Sequence[Framed], line_width: int = 2) -> Image.Image:
    """A copy of an RGB image with boxes of any colours, later ones on top; a caption that would
    bury an object is left out."""
    from PIL import ImageDraw, ImageFont

    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    boxes = np.array([one.box for one in framed], np.float64).reshape(-1, 4)
    for one in framed:
        draw.rectangle(one.box, outline=one.colour, width=line_width)
        plate = _plate(draw, list(one.box), one.caption, font)
        if one.caption and not _buries(plate, boxes):
            _caption(draw, plate, one.caption, one.colour, font)
    return canvas


def _buries(plate: tuple[float, float, float, float], boxes: np.ndarray) -> bool:
    """Whether a caption's plate hides more than half of any object."""
    low, high = np.maximum(boxes[:, :2], plate[:2]), np.minimum(boxes[:, 2:], plate[2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1e-6).prod(1)
    return bool(((high - low).clip(0).prod(1) > areas / 2).any())


def _with_masks(image: Image.Image, detections: Drawable, colours: list[Colour]) -> Image.Image:
    """A copy of the image with every mask tinted."""
    if detections.masks is None:
        return image.copy()
    pixels = np.asarray(image).copy()
    for i in reversed(range(len(detections.labels))):
        mask = detections.masks[i]
        pixels[mask] = (pixels[mask] + np.array(colours[i])) // 2
    return Image.fromarray(pixels)


def _plate(
    draw: "ImageDraw.ImageDraw",
    box: list[float],
    text: str,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> tuple[float, float, float, float]:
    """Where a caption lies: above the box's corner, or inside it at the image's upper edge."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    height = bottom - top + 2 * _MARGIN
    y = box[1] - height
    y = y if y >= 0 else box[1]
    return box[0], y, box[0] + right - left + 2 * _MARGIN, y + height


def _caption(
    draw: "ImageDraw.ImageDraw",
    plate: tuple[float, float, float, float],
    text: str,
    colour: Colour,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> None:
    """A filled label."""
    left, top, _, _ = draw.textbbox((0, 0), text, font=font)
    draw.rectangle(plate, colour)
    draw.text((plate[0] + _MARGIN - left, plate[1] + _MARGIN - top), text, (255, 255, 255), font)


def _colours(detections: Drawable, colour: str) -> list[Colour]:
    """One for each object, by what `draw_detections` is told."""
    if colour == "instance":
        tracks = detections.tracks
        return [_hue(i) for i in (range(len(detections.labels)) if tracks is None else tracks)]
    return [class_colour(label, len(detections.names)) for label in detections.labels]


def class_colour(label: int, count: int) -> Colour:
    """The colour of a class of so many."""
    return _hue(label) if count > 1 else _shade(0.6)


def _hue(number: int) -> Colour:
    """Hues far apart, whatever the count."""
    return _shade(int(number) * 0.618 % 1.0)


def _shade(hue: float) -> Colour:
    """A hue, dark enough for white text."""
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9, 0.7)
    return round(red * 255), round(green * 255), round(blue * 255)
