"""The SSD training augmentation that DSOD and RefineDet share.

Photometric distortion, expansion on a mean canvas up to 4×, IoU-constrained crop, warp to the
input with a random interpolation, mirror (arXiv 1512.02325 section 2.2 and the released scripts).
Expansion and crop are drawn as numbers first, so that only what the input shows is ever sampled.
Differences to the released code: interpolations smooth when they shrink, hues turn full circle,
and colours are distorted after the warp, where there is less to distort.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from vovnet.boxes.iou import pairwise_iou
from vovnet.data.place import MIN_SIDE, Layout, Place, paste
from vovnet.data.sample import Sample, flipped

_EXPANSION = 4.0
_INTERPOLATIONS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
# Samplers of the crop: the whole image, its least overlap (IoU) with some object, or anything.
_WHOLE, _ANYTHING = 2.0, 0.0
_SAMPLERS = (_WHOLE, 0.1, 0.3, 0.5, 0.7, 0.9, _ANYTHING)
_TRIES = 50
_BLOCK = 2**14  # pixels whose colours turn together: a processor's cache holds their floats


@dataclass(frozen=True)
class SSDAugment:
    """The pipeline; `vertical_flip` for pictures without an up, such as microscope images."""

    flip: float = 0.5
    vertical_flip: float = 0.0

    fill: ClassVar = (123, 117, 104)  # ImageNet's mean

    def __call__(self, samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
        """One image through the pipeline, warped to `size`×`size`."""
        return self.render(samples, self.layout(samples, size, rng))

    def layout(self, samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Layout:
        """Draw how the only sample is shown; the colours are a `Distortion`."""
        [sample] = samples
        distortion = Distortion.draw(rng)
        place = _place(sample.boxes, sample.pixels.shape[:2], size, rng)
        resample = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
        mirrored, upside_down = rng.random() < self.flip, rng.random() < self.vertical_flip
        places = (place._replace(resample=resample),)
        return Layout(size, places, mirrored, upside_down, distortion)

    def render(self, samples: Sequence[Sample], layout: Layout) -> Sample:
        """The input that `layout` makes of the only sample."""
        canvas = np.array(Image.new("RGB", (layout.size, layout.size), self.fill))
        paste(canvas, samples[0].pixels, layout.places[0], Distortion(*layout.colours).apply)
        placed = self.objects(samples, layout, canvas)
        return replace(placed, pixels=np.ascontiguousarray(placed.pixels))

    def objects(self, samples: Sequence[Sample], layout: Layout, canvas: np.ndarray) -> Sample:
        """The objects of the sample in a canvas that holds its pixels; with it, flipped."""
        [place] = layout.places
        placed = _visible(samples[0].moved(canvas, place.scale, place.offset))
        return flipped(placed, layout.mirrored, layout.upside_down)


def _place(boxes: np.ndarray, shape: tuple[int, ...], size: int, rng: np.random.Generator) -> Place:
    """Where the image lies once it is expanded, cropped, and the crop warped to the input."""
    image = np.array(shape[::-1], float)  # x, y
    ratio = rng.uniform(1.0, _EXPANSION) if rng.random() < 0.5 else 1.0
    corner = rng.random(2) * (ratio - 1.0) * image
    crop = _crop(boxes + np.tile(corner, 2), ratio * image, rng)
    scale = size / (crop[2:] - crop[:2])
    (scale_x, scale_y), (left, top) = scale.tolist(), ((corner - crop[:2]) * scale).tolist()
    return Place((0, 0, size, size), (scale_x, scale_y), (left, top))


def _crop(boxes: np.ndarray, canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(x1, y1, x2, y2) of the part that is shown, of a canvas (width, height) with its boxes.

    The released code tries every sampler and picks one of those that found a crop; the first one
    that does in a random order is the same.
    """
    for overlap in rng.permutation(_SAMPLERS):
        if overlap == _WHOLE:
            break
        crops = _candidates(rng) * np.tile(canvas, 2)
        if overlap == _ANYTHING:
            return crops[0]
        found = pairwise_iou(torch.from_numpy(crops), torch.from_numpy(boxes)) >= overlap
        good = found.any(1).numpy()
        if good.any():
            return crops[good.argmax()]
    return np.concatenate([[0.0, 0.0], canvas])


def _candidates(rng: np.random.Generator) -> np.ndarray:
    """Crops of 0.3 to 1 of the side and an aspect of 0.5 to 2, in shares of the sides: 50×4."""
    scale = rng.uniform(0.3, 1.0, _TRIES)
    aspect = rng.uniform(np.maximum(0.5, scale**2), np.minimum(2.0, scale**-2))
    sides = np.stack([scale * np.sqrt(aspect), scale / np.sqrt(aspect)], 1)
    corners = rng.random((_TRIES, 2)) * (1.0 - sides)
    return np.concatenate([corners, corners + sides], 1)


def _visible(sample: Sample) -> Sample:
    """Objects whose centres are in the picture, clipped to it."""
    limit = np.array(sample.pixels.shape[1::-1], np.float32)
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    boxes = sample.boxes.clip(0, np.tile(limit, 2))
    large = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= MIN_SIDE
    inside = ((centres > 0) & (centres < limit)).all(1)
    return replace(sample, boxes=boxes).kept(large & inside)


class Distortion(NamedTuple):
    """A change of colours: added brightness, factors of contrast and of saturation, a turn of the
    hue (share of the circle), and whether contrast comes before the latter two or after."""

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    contrast_first: float = 1.0  # 0 or 1

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Distortion":
        """Each of the four with a probability of a half."""
        ranges = ((-32.0, 32.0), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1))
        drawn = np.where(rng.random(4) < 0.5, [rng.uniform(*r) for r in ranges], cls()[:4])
        return cls(*drawn.tolist(), contrast_first=float(rng.random() < 0.5))

    def apply(self, image: Image.Image) -> Image.Image:
        """The RGB image with its colours changed."""
        values = np.arange(256.0)
        first = values + self.brightness
        if self.contrast_first:
            first = first.clip(0, 255) * self.contrast
        image = _mapped(image, first)
        if self.saturation != 1.0 or self.hue != 0.0:
            image = _turned(image, self.saturation, self.hue)
        return image if self.contrast_first else _mapped(image, values * self.contrast)


def _mapped(image: Image.Image, table: np.ndarray) -> Image.Image:
    """Every channel through a table of 256 new values."""
    return image.point(np.rint(table).clip(0, 255).astype(np.uint8).tolist() * 3)


def _turned(image: Image.Image, saturation: float, hue: float) -> Image.Image:
    planes = np.stack([np.asarray(channel).ravel() for channel in image.split()])
    for start in range(0, planes.shape[1], _BLOCK):
        block = planes[:, start : start + _BLOCK]
        turned = turn_hues(block.astype(np.float32), saturation, hue, np)
        block[:] = np.stack(turned) + np.float32(0.5)
    shape = (image.height, image.width)
    return Image.merge("RGB", [Image.fromarray(plane.reshape(shape)) for plane in planes])


def turn_hues(channels: Any, saturation: Any, hue: Any, xp: Any) -> list[Any]:
    """Three channels of floats with saturation multiplied and hue turned as in HSV, in less time
    than Pillow's own takes. `xp` is numpy or torch, whichever the arrays are of.

    A channel is value − chroma where it is darkest and value where it is brightest; between them
    lie linear ramps over the sixths of the colour circle.
    """
    red, green, blue = channels
    value = xp.maximum(xp.maximum(red, green), blue)
    chroma = value - xp.minimum(xp.minimum(red, green), blue)
    unit = chroma.clip(1e-3)
    others = xp.where(value == green, blue - red + 2 * unit, red - green + 4 * unit)
    sixth = xp.where(value == red, green - blue, others) / unit + 6 * hue
    sixth = sixth - 6 * xp.floor(sixth / 6)
    chroma = xp.minimum(chroma * saturation, value)
    ramps = (abs(sixth - 3) - 1, 2 - abs(sixth - 2), 2 - abs(sixth - 4))
    return [value - chroma + chroma * ramp.clip(0, 1) for ramp in ramps]
