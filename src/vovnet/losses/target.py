"""What a network should have said about one image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class InstanceMasks(NamedTuple):
    """The masks of G objects: each a bitmap that fills a frame in the input.

    A frame is the box that the bitmap was cut out with, moved and scaled with the image but not
    clipped to it; so resizing, cropping and mirroring a picture never resample a mask. `frames`
    G×4 float32 xyxy in input pixels, `shapes` G×2 int64 (height, width) of the bitmaps, which lie
    in `pixels`, one uint8 vector, row by row and one after another. An object without a mask has
    the shape (0, 0).
    """

    frames: Tensor
    shapes: Tensor
    pixels: Tensor

    def bitmaps(self) -> list[Tensor]:
        """Each object's bitmap, height×width uint8 of zeros and ones, views of `pixels`."""
        parts = self.pixels.split(self.shapes.prod(1).tolist())
        return [part.view(*shape) for part, shape in zip(parts, self.shapes.tolist(), strict=True)]


class Target(NamedTuple):
    """Objects of one image: boxes G×4 float32 xyxy in input pixels, labels G int64; G may be 0.

    `masks` are there when the network that trains on the target draws masks. From `seed` follows
    what a loss draws at random for the image. `scores` G float32 in 0..1 weigh the objects, a
    teacher's by how sure it is; None where all are labels, which weigh 1.
    """

    boxes: Tensor
    labels: Tensor
    masks: InstanceMasks | None = None
    seed: int = 0
    scores: Tensor | None = None

    def to(self, device: torch.device) -> "Target":
        """The target on a device; from pinned memory a GPU fetches it without a wait."""

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=device.type == "cuda")

        masks = self.masks and InstanceMasks(*map(there, self.masks))
        scores = None if self.scores is None else there(self.scores)
        return Target(there(self.boxes), there(self.labels), masks, self.seed, scores)


def weights_of(targets: Sequence[Target]) -> Tensor | None:
    """The scores of all objects of a batch, one image's after the other's; None if all weigh 1."""
    if all(target.scores is None for target in targets):
        return None
    weights = [torch.ones_like(t.boxes[:, 0]) if t.scores is None else t.scores for t in targets]
    return torch.cat(weights)
