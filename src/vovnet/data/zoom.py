"""VoVDet's augmentation: random zoom and crop, aspect, flip, colour, and mosaics of four images.

What is random is drawn first, as plain numbers, from the generator that is handed in: so a sample
depends on (seed, epoch, index) alone, and can be made from the numbers here or on a device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from vovnet.data.place import Layout, Place, paste, place_objects
from vovnet.data.sample import Sample, flipped

LUMA = (0.299, 0.587, 0.114)  # of grey in red, green and blue


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
    fill: ClassVar = (114, 114, 114)

    def __call__(self, samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
        """One image placed at random in a `size`×`size` input, or a mosaic of four."""
        return self.render(samples, self.layout(samples, size, rng))

    def layout(self, samples: Sequence[Sample], size: int, rng: np.random.Generator) -> Layout:
        """Draw how one image is placed, or four, one in each quarter around a random centre.

        The colours are factors of brightness, contrast and saturation.
        """
        windows = ((0, 0, size, size),) if len(samples) == 1 else _quarters(size, rng)
        shapes = (sample.pixels.shape[:2] for sample in samples)
        places = [self._place(s, window, rng) for s, window in zip(shapes, windows, strict=True)]
        mirrored, upside_down = rng.random() < self.flip, rng.random() < self.vertical_flip
        b, c, s = (rng.uniform(1 - self.colour, 1 + self.colour) for _ in range(3))
        return Layout(size, tuple(places), mirrored, upside_down, (b, c, s))

    def render(self, samples: Sequence[Sample], layout: Layout) -> Sample:
        """The input that `layout` makes of the samples."""
        canvas = np.full((layout.size, layout.size, 3), self.fill[0], dtype=np.uint8)
        for sample, place in zip(samples, layout.places, strict=True):
            paste(canvas, sample.pixels, place)
        image = _recoloured(Image.fromarray(canvas), layout.colours)
        if layout.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if layout.upside_down:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return replace(self.objects(samples, layout, canvas), pixels=np.asarray(image))

    def objects(self, samples: Sequence[Sample], layout: Layout, canvas: np.ndarray) -> Sample:
        """The objects of the samples in a canvas that holds their pixels; with it, flipped."""
        placed = place_objects(samples, layout.places, canvas)
        return flipped(placed, layout.mirrored, layout.upside_down)

    def _place(
        self,
        shape: tuple[int, ...],
        window: tuple[int, int, int, int],
        rng: np.random.Generator,
    ) -> Place:
        """Scale by a random zoom and aspect, then put at a random offset; the rest is padding."""
        source_h, source_w = shape
        width, height = window[2] - window[0], window[3] - window[1]
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
        return Place(window, (scale_x, scale_y), (left, top))


def _quarters(size: int, rng: np.random.Generator) -> tuple[tuple[int, int, int, int], ...]:
    x, y = (round(size * rng.uniform(0.35, 0.65)) for _ in range(2))
    return ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))


def _recoloured(image: Image.Image, factors: Sequence[float]) -> Image.Image:
    """An RGB image with brightness, contrast and saturation changed, in two passes.

    Like Pillow's `ImageEnhance`, but rounded once: contrast keeps the mean grey, saturation each
    pixel's.
    """
    brightness, contrast, saturation = factors
    bright = (np.arange(256) * brightness).clip(0, 255)
    grey = np.array(image.convert("L").histogram())
    mean = float(grey @ bright) / grey.sum()
    table = np.rint(mean + contrast * (bright - mean)).clip(0, 255).astype(np.uint8)
    red, green, blue = (1 - saturation) * np.array(LUMA)
    matrix = (
        *(red + saturation, green, blue, 0.0),
        *(red, green + saturation, blue, 0.0),
        *(red, green, blue + saturation, 0.0),
    )
    return image.point(table.tolist() * 3).convert("RGB", matrix)
