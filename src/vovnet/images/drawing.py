"""Detections drawn on their image."""

import colorsys
from typing import TYPE_CHECKING, Protocol

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
    def masks(self) -> np.ndarray | None:
        """N×H×W bool."""
        ...


def draw_detections(image: Image.Image, detections: Drawable) -> Image.Image:
    """A copy of an RGB image with a box and "name score" for every detection, best on top.

    Masks are laid over the picture half transparent. What EXIF turns for display is turned first,
    as `Detector.detect` does.
    """
    from PIL import ImageDraw, ImageFont  # only if something is drawn: they take time to import

    canvas = _with_masks(upright(image), detections)
    draw = ImageDraw.Draw(canvas)
    unit = max(image.size) / 640
    width = max(2, round(3 * unit))
    font = ImageFont.load_default(size=max(11, round(16 * unit)))
    for i in reversed(range(len(detections.labels))):
        label = int(detections.labels[i])
        colour = _colour(label, len(detections.names))
        box = [float(v) for v in detections.boxes[i]]
        draw.rectangle(box, outline=colour, width=width)
        _caption(draw, box, f"{detections.names[label]} {detections.scores[i]:.2f}", colour, font)
    return canvas


def _with_masks(image: Image.Image, detections: Drawable) -> Image.Image:
    """A copy of the image with every mask tinted: by class, or one hue an object if there is one
    class, so that neighbours can be told apart."""
    if detections.masks is None:
        return image.copy()
    pixels = np.asarray(image).copy()
    classes = len(detections.names)
    for i in reversed(range(len(detections.labels))):
        colour = _colour(int(detections.labels[i]) if classes > 1 else i, max(2, classes))
        mask = detections.masks[i]
        pixels[mask] = (pixels[mask] + np.array(colour)) // 2
    return Image.fromarray(pixels)


def _caption(
    draw: "ImageDraw.ImageDraw",
    box: list[float],
    text: str,
    colour: tuple[int, int, int],
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
) -> None:
    """A filled label above the box's corner, or inside it at the image's upper edge."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    height, margin = bottom - top, 3
    y = box[1] - height - 2 * margin
    y = y if y >= 0 else box[1]
    draw.rectangle((box[0], y, box[0] + right - left + 2 * margin, y + height + 2 * margin), colour)
    draw.text((box[0] + margin - left, y + margin - top), text, (255, 255, 255), font)


def _colour(label: int, count: int) -> tuple[int, int, int]:
    """Hues spread over the classes, dark enough for white text."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1.0 if count > 1 else 0.6, 0.9, 0.7)
    return round(red * 255), round(green * 255), round(blue * 255)
