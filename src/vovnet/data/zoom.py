"""VoVDet's augmentation: random zoom and crop, aspect, flip, colour, and mosaics of four images.

Every function takes its randomness from the generator that is handed in, so that a sample depends
on (seed, epoch, index) alone and a resumed run sees the same pictures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from vovnet.data.sample import Sample, joined

_PAD = 114
_MIN_SIDE = 2.0  # pixels; smaller boxes teach nothing
_MIN_VISIBLE = 0.3  # share of a box's area that must survive the crop


@dataclass(frozen=True)
class ZoomAugment:
    """Ranges of the random zoom (1 = the image just fits), aspect (log), and colour factors.

    `fit` is the network's: at zoom 1 a "letterbox" image keeps its shape, a "warp" one is
    stretched over the whole input.
    """

    zoom: tuple[float, float] = (0.45, 1.6)
    aspect: float = 0.3
    colour: float = 0.4
    flip: float = 0.5
    vertical_flip: float = 0.0
    fit: Literal["warp", "letterbox"] = "letterbox"

    def single(self, sample: Sample, size: int, rng: np.random.Generator) -> Sample:
        """One image placed at random in a `size`×`size` input."""
        placed = self._place(sample, size, size, rng)
        return self._finish(placed, rng)

    def mosaic(self, samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
        """Four images, one in each quarter around a random centre of a `size`×`size` input."""
        x, y = (round(size * rng.uniform(0.35, 0.65)) for _ in range(2))
        corners = ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))
        canvas = np.empty((size, size, 3), dtype=np.uint8)
        parts = []
        for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
            part = self._place(sample, bottom - top, right - left, rng)
            canvas[top:bottom, left:right] = part.pixels
            parts.append(part.cut_masks().moved(canvas, (1.0, 1.0), (left, top)))
        return self._finish(joined(canvas, parts), rng)

    def _place(self, sample: Sample, height: int, width: int, rng: np.random.Generator) -> Sample:
        """Scale by a random zoom and aspect, then put at a random offset; the rest is padding."""
        source_h, source_w = sample.pixels.shape[:2]
        low, high = self.zoom
        zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
        skew = math.exp(rng.uniform(-self.aspect, self.aspect) / 2)
        scale_x, scale_y = width / source_w, height / source_h
        if self.fit == "letterbox":
            scale_x = scale_y = min(scale_x, scale_y)
        scale_x, scale_y = zoom * scale_x * skew, zoom * scale_y / skew
        # Anywhere inside if it is smaller than the input, anywhere covering it if larger.
        left = rng.random() * (width - source_w * scale_x)
        top = rng.random() * (height - source_h * scale_y)
        pixels = _paste(sample.pixels, height, width, scale_x, scale_y, left, top)
        return _crop_boxes(sample.moved(pixels, (scale_x, scale_y), (left, top)))

    def _finish(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < self.flip:
            sample = sample.mirrored()
        if rng.random() < self.vertical_flip:
            sample = sample.upside_down()
        boxes = np.ascontiguousarray(sample.boxes)
        return replace(sample, pixels=self._recolour(sample.pixels, rng), boxes=boxes)

    def _recolour(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhance(image).enhance(rng.uniform(1 - self.colour, 1 + self.colour))
        return np.asarray(image)


def _paste(
    pixels: np.ndarray,
    height: int,
    width: int,
    scale_x: float,
    scale_y: float,
    left: float,
    top: float,
) -> np.ndarray:
    """`pixels` scaled and moved into a padded height×width canvas, sampling only what is seen."""
    x0, x1, from_x, to_x = _span(left, scale_x, pixels.shape[1], width)
    y0, y1, from_y, to_y = _span(top, scale_y, pixels.shape[0], height)
    box = (from_x, from_y, to_x, to_y)
    visible = Image.fromarray(pixels).resize(
        (x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0
    )
    canvas = np.full((height, width, 3), _PAD, dtype=np.uint8)
    canvas[y0:y1, x0:x1] = np.asarray(visible)
    return canvas


def _span(offset: float, scale: float, source: int, length: int) -> tuple[int, int, float, float]:
    """Where one axis of an image falls: first and last pixel of the canvas, and of the image.

    An image thinner than a pixel there fills one.
    """
    first = min(max(0, round(offset)), length - 1)
    last = min(length, max(first + 1, round(offset + source * scale)))
    start = max(0.0, (first - offset) / scale)
    end = min(float(source), (last - offset) / scale)
    return (first, last, start, end) if start < end else (first, last, 0.0, float(source))


def _crop_boxes(sample: Sample) -> Sample:
    """Clip boxes to the pixels; drop those of which too little is left to be recognised."""
    height, width = sample.pixels.shape[:2]
    boxes = sample.boxes.clip(0, np.array([width, height] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    before = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    keep = (sides.min(1, initial=np.inf) >= _MIN_SIDE) & (sides.prod(1) >= _MIN_VISIBLE * before)
    return replace(sample, boxes=boxes).kept(keep)
