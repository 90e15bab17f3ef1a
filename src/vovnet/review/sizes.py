"""How many objects are found, by their size."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vovnet.review.matches import Matches

_EDGES = (0, 16, 32, 64, 128, 256, np.inf)  # pixels of the root of the area


@dataclass(frozen=True)
class SizeBin:
    """Objects whose side (root of the area) lies in a range of pixels, and how many are found."""

    name: str
    objects: int
    found: int


def by_size(matches: Matches, conf: float) -> list[SizeBin]:
    """The ranges that have objects, smallest first."""
    bins = []
    for low, high in pairwise(_EDGES):
        inside = (matches.object_side >= low) & (matches.object_side < high)
        found = inside & (matches.object_score > np.float32(conf))
        name = f"{low:g} px and more" if high == np.inf else f"{low:g} to {high:g} px"
        bins.append(SizeBin(name, int(inside.sum()), int(found.sum())))
    return [one for one in bins if one.objects]
