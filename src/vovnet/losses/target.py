"""What a network should have said about one image."""

from typing import NamedTuple

from torch import Tensor


class Target(NamedTuple):
    """Objects of one image: boxes G×4 float32 xyxy in input pixels, labels G int64; G may be 0."""

    boxes: Tensor
    labels: Tensor
