"""How an image becomes a network's input, and how boxes find their way back."""

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from vovnet.errors import VovnetError
from vovnet.images.orientation import upright

_LARGEST = 8192  # pixels; more is a mistake, or a file that means harm


class Placement(NamedTuple):
    """Where an image lies in its input: input = scale · image + offset, in pixels."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    height: int  # of the original image
    width: int

    def to_image(self, boxes: np.ndarray, *, clip: bool = True) -> np.ndarray:
        """Boxes N×4 xyxy from input pixels to pixels of the original image, clipped to it."""
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        whole = (boxes - offset) / scale
        return whole.clip(0, limit) if clip else whole


@dataclass(frozen=True)
class InputSpec:
    """A network's input: size in pixels, how an image is fitted, and the normalisation.

    `fit` "warp" stretches the image over the whole input; "letterbox" keeps its shape, in the
    middle or at the top left (`place`), the rest filled with `pad`. `mean` and `std` are per RGB
    channel in 0..255 units, whatever order the network takes the `channels` in. `multiple` tells
    which sizes the network takes; None means `size` only.
    """

    size: tuple[int, int]  # height, width
    fit: Literal["warp", "letterbox"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: int = 114
    multiple: int | None = None
    place: Literal["centre", "top left"] = "centre"
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        pair = isinstance(self.size, tuple) and len(self.size) == 2
        if not (pair and all(isinstance(v, int) and 0 < v <= _LARGEST for v in self.size)):
            raise VovnetError(f"input size {self.size}: must be two whole numbers in 1..{_LARGEST}")
        if self.fit not in ("warp", "letterbox"):
            raise VovnetError(f"input fit {self.fit!r}: must be warp or letterbox")
        if self.place not in ("centre", "top left"):
            raise VovnetError(f"input place {self.place!r}: must be centre or top left")
        if self.channels not in ("rgb", "bgr"):
            raise VovnetError(f"input channels {self.channels!r}: must be rgb or bgr")
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = isinstance(values, tuple) and len(values) == 3
            if not (numbers and all(isinstance(v, int | float) and isfinite(v) for v in values)):
                raise VovnetError(f"input {name} {values}: must be three finite numbers")
        if not (isinstance(self.pad, int) and 0 <= self.pad <= 255):
            raise VovnetError(f"input pad {self.pad!r}: must be a whole number in 0..255")
        if min(self.std) <= 0:
            raise VovnetError(f"input std {self.std}: must be above 0")

    def with_side(self, side: int, model: str) -> "InputSpec":
        """The same for side×side inputs; raises `VovnetError` for a size `model` cannot take."""
        if self.multiple is None and (side, side) != self.size:
            raise VovnetError(f"{model}: takes {self.size[0]} pixels only, not --imgsz {side}")
        if side < 1 or (self.multiple and side % self.multiple):
            raise VovnetError(
                f"{model}: --imgsz {side} is not a positive multiple of {self.multiple}"
            )
        return replace(self, size=(side, side))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without place and channels where they are the usual ones, which
        earlier versions do not know."""
        usual = {"place": "centre", "channels": "rgb"}
        return {key: value for key, value in asdict(self).items() if usual.get(key) != value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InputSpec":
        """The inverse of `to_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)

    def prepare(
        self, image: Image.Image, whole: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Placement]:
        """An RGB image to the input's uint8 H×W×3 pixels and its placement.

        What EXIF turns for display is turned first; all sizes are of the image as displayed.
        `whole` is the (height, width) of the image where `image` is a smaller copy of it; boxes
        then lead back to the whole.
        """
        image = upright(image)
        height, width = self.size
        whole_h, whole_w = whole or (image.height, image.width)
        if self.fit == "warp":
            pixels = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
            place = Placement(width / whole_w, height / whole_h, 0.0, 0.0, whole_h, whole_w)
            return np.asarray(pixels), place
        scale = min(width / image.width, height / image.height)
        new_w = max(1, round(image.width * scale))
        new_h = max(1, round(image.height * scale))
        left, top = (width - new_w) // 2, (height - new_h) // 2
        if self.place == "top left":
            left, top = 0, 0
        canvas = np.full((height, width, 3), self.pad, dtype=np.uint8)
        small = image.resize((new_w, new_h), Image.Resampling.BILINEAR, reducing_gap=2.0)
        canvas[top : top + new_h, left : left + new_w] = np.asarray(small)
        place = Placement(new_w / whole_w, new_h / whole_h, left, top, whole_h, whole_w)
        return canvas, place

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 N×H×W×3, RGB, to float32 N×3×H×W, normalised and in the order of `channels`."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        # A byte has 256 values: looking them up is eight times as fast, and gives the same bits.
        levels = ((np.arange(256, dtype=np.uint8)[:, None] - mean) / std).T.copy()
        images = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
        for plane, channel in enumerate((2, 1, 0) if self.channels == "bgr" else (0, 1, 2)):
            np.take(levels[channel], pixels[..., channel], out=images[:, plane], mode="clip")
        return images
