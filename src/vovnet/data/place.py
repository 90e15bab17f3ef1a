"""Where images lie in a network's input, and what is left of their objects there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from vovnet.data.sample import Sample, joined

MIN_SIDE = 2.0  # pixels; smaller boxes teach nothing
_MIN_VISIBLE = 0.3  # share of a box's area that must survive the crop


class Span(NamedTuple):
    """Where one axis of an image falls: the canvas from pixel `first` to before `last` shows it
    from `start` to `end` (pixels of the image, parts of them too)."""

    first: int
    last: int
    start: float
    end: float


class Place(NamedTuple):
    """Where an image lies: window = scale · image + offset (x, y in pixels), cut to the window.

    The window, (x1, y1, x2, y2), is the part of the canvas that the image may fill; `resample` is
    how Pillow interpolates.
    """

    window: tuple[int, int, int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def spans(self, height: int, width: int) -> tuple[Span, Span] | None:
        """The spans in x and y of an image of that size; None if the window shows none of it.

        An image thinner than a pixel there fills one.
        """
        x1, y1, x2, y2 = self.window
        across = _span(self.offset[0], self.scale[0], width, x2 - x1)
        down = _span(self.offset[1], self.scale[1], height, y2 - y1)
        if across is None or down is None:
            return None
        return _shifted(across, x1), _shifted(down, y1)


class Layout(NamedTuple):
    """How one `size`×`size` input is made: the images' places, then flips; `colours` are numbers
    that the augmentation itself understands."""

    size: int
    places: tuple[Place, ...]
    mirrored: bool
    upside_down: bool
    colours: tuple[float, ...]


def paste(
    canvas: np.ndarray,
    pixels: np.ndarray,
    place: Place,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> None:
    """Draw H×W×3 uint8 `pixels` into the canvas at their place, sampling only what is seen.

    `change` is applied to just that.
    """
    spans = place.spans(*pixels.shape[:2])
    if spans is None:
        return
    across, down = spans
    visible = Image.fromarray(pixels).resize(
        (across.last - across.first, down.last - down.first),
        place.resample,
        box=(across.start, down.start, across.end, down.end),
        reducing_gap=2.0,
    )
    if change:
        visible = change(visible)
    canvas[down.first : down.last, across.first : across.last] = np.asarray(visible)


def place_objects(samples: Sequence[Sample], places: Sequence[Place], canvas: np.ndarray) -> Sample:
    """The objects of the samples in the canvas that holds them at their places.

    Boxes are clipped to their window; those of which too little is left to be recognised are
    dropped.
    """
    parts = []
    for sample, place in zip(samples, places, strict=True):
        left, top, right, bottom = place.window
        view = canvas[top:bottom, left:right]
        part = _visible(sample.moved(view, place.scale, place.offset))
        if len(places) > 1:  # others lie beside it
            part = part.cut_masks()
        parts.append(part.moved(canvas, (1.0, 1.0), (left, top)))
    return joined(canvas, parts)


def _visible(sample: Sample) -> Sample:
    height, width = sample.pixels.shape[:2]
    boxes = sample.boxes.clip(0, np.array([width, height] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    before = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    keep = (sides.min(1, initial=np.inf) >= MIN_SIDE) & (sides.prod(1) >= _MIN_VISIBLE * before)
    return replace(sample, boxes=boxes).kept(keep)


def _span(offset: float, scale: float, source: int, length: int) -> Span | None:
    if offset >= length or offset + source * scale <= 0:
        return None
    first = min(max(0, round(offset)), length - 1)
    last = min(length, max(first + 1, round(offset + source * scale)))
    start = max(0.0, (first - offset) / scale)
    end = min(float(source), (last - offset) / scale)
    return Span(first, last, start, end) if start < end else Span(first, last, 0.0, float(source))


def _shifted(span: Span, by: int) -> Span:
    return span._replace(first=span.first + by, last=span.last + by)
