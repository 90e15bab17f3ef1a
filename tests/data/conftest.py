"""Pictures for the tests of the dataset doctor."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_ORIENTATION = 0x0112


def write_noise(
    path: Path,
    seed: int,
    size: tuple[int, int] = (64, 64),
    *,
    mode: str = "RGB",
    orientation: int = 1,
    save_as: str | None = None,
) -> Path:
    """A picture of noise, (width, height) `size`: no other seed's looks like it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).convert(mode)
    exif = Image.Exif()
    if orientation != 1:
        exif[_ORIENTATION] = orientation
    picture.save(path, format=save_as, exif=exif)
    return path


@pytest.fixture(scope="session")
def noise() -> Callable[..., Path]:
    return write_noise
