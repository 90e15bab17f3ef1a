"""One image in training: pixels with its objects, on its way through augmentation."""

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """Pixels H×W×3 uint8 RGB; boxes N×4 float32 xyxy in pixels; labels N int64; N may be 0."""

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
