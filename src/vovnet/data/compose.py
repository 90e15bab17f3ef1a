"""What an input shows: all that is random in a sample, drawn before a pixel is touched."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vovnet.data.draws import Draw, mixing_weight
from vovnet.data.place import Layout
from vovnet.data.sample import Sample, blended, joined
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment

Augment = ZoomAugment | SSDAugment


class Picture(NamedTuple):
    """The images (by index) that one input shows, and how."""

    indices: tuple[int, ...]
    samples: list[Sample]
    layout: Layout


class Composition(NamedTuple):
    """One picture, or two laid over each other, of which the first weighs `weight`."""

    augment: Augment
    pictures: list[Picture]
    weight: float = 1.0

    def render(self) -> Sample:
        """The sample itself."""
        first, *other = (self.augment.render(p.samples, p.layout) for p in self.pictures)
        return blended(first, other[0], self.weight) if other else first

    def objects(self, canvas: np.ndarray) -> Sample:
        """The sample's objects around a canvas of its size, whose pixels do not matter."""
        placed = [self.augment.objects(p.samples, p.layout, canvas) for p in self.pictures]
        return joined(canvas, placed)


def compose(
    draw: Draw, seed: int, count: int, raw: Callable[[int], Sample], augment: Augment
) -> Composition:
    """Draw all that is random in the sample of `draw`, from a set of `count` images.

    `raw` gives an image by its index; of its pixels only the shape is looked at. SSD's augmentation
    makes no mosaics.
    """
    rng = draw.generator(seed)

    def picture(*indices: int) -> Picture:
        samples = [raw(index) for index in indices]
        return Picture(indices, samples, augment.layout(samples, draw.size, rng))

    mosaic = draw.mosaic and isinstance(augment, ZoomAugment)
    others = rng.integers(count, size=3).tolist() if mosaic else ()
    first = picture(draw.index, *others)
    if not draw.mixup:
        return Composition(augment, [first])
    weight = mixing_weight(rng)
    return Composition(augment, [first, picture(int(rng.integers(count)))], weight)
