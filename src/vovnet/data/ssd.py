"""The SSD training augmentation that DSOD and RefineDet share, from torchvision's pieces.

Photometric distortion, expansion on a mean canvas up to 4×, IoU-constrained crop, warp to the
input with a random interpolation, mirror (arXiv 1512.02325 section 2.2 and the released scripts).
Differences: torchvision's crop tries 40 times per sampler, its hue turns in RGB→HSV floats.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from vovnet.data.sample import Sample

_MEAN: dict[type[Any] | str, Any] = {tv_tensors.Image: (123, 117, 104), "others": 0}
_INTERPOLATIONS = (
    InterpolationMode.NEAREST,
    InterpolationMode.BILINEAR,
    InterpolationMode.BICUBIC,
)
# torchvision crops down to 0.3 of a side and divides by the result, rounded down.
_CROPPABLE = 4


@dataclass(frozen=True)
class SSDAugment:
    """The pipeline; `vertical_flip` for pictures without an up, such as microscope images."""

    flip: float = 0.5
    vertical_flip: float = 0.0
    steps: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps = (
            v2.RandomPhotometricDistort(
                brightness=(0.75, 1.25), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.1, 0.1)
            ),
            v2.RandomZoomOut(fill=_MEAN, side_range=(1.0, 4.0), p=0.5),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(self.flip),
            v2.RandomVerticalFlip(self.vertical_flip),
        )
        object.__setattr__(self, "steps", steps)

    def single(self, sample: Sample, size: int, rng: np.random.Generator) -> Sample:
        """One image through the pipeline, warped to `size`×`size`.

        torchvision draws from torch's global generator, so that is seeded from `rng` inside a
        fork and the caller's state is left alone.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            return self._run(sample, size, rng)

    def _run(self, sample: Sample, size: int, rng: np.random.Generator) -> Sample:
        height, width = sample.pixels.shape[:2]
        image = tv_tensors.Image(torch.from_numpy(sample.pixels.copy()).permute(2, 0, 1))
        boxes = tv_tensors.BoundingBoxes(
            # pyrefly: ignore[unexpected-keyword]  (it reads Tensor's constructor, not this one's)
            torch.from_numpy(sample.boxes), format="XYXY", canvas_size=(height, width)
        )  # fmt: skip
        target = {"boxes": boxes, "labels": torch.from_numpy(sample.labels)}
        for step in self.steps:
            if isinstance(step, v2.RandomIoUCrop) and min(image.shape[-2:]) < _CROPPABLE:
                continue
            image, target = step(image, target)
        mode = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
        resize = v2.Resize((size, size), interpolation=mode, antialias=True)
        image, target = v2.SanitizeBoundingBoxes(min_size=2)(*resize(image, target))
        return Sample(
            np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
            target["boxes"].numpy().astype(np.float32, copy=False).reshape(-1, 4),
            target["labels"].numpy(),
        )
