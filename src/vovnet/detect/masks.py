"""Masks of regions on their way into the image."""

import numpy as np


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, image_size: tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """Masks K×S×S of probabilities, each filling its box, as K×H×W bool of the whole image.

    `boxes` is K×4 xyxy in pixels of the image. Every pixel centre in the box takes the bilinear
    value between the mask's cell centres, nothing beyond them (as detectron2, arXiv 1703.06870
    appendix).
    """
    height, width = image_size
    whole = np.zeros((len(masks), height, width), bool)
    for canvas, mask, (x1, y1, x2, y2) in zip(whole, masks, boxes.tolist(), strict=True):
        left, right = max(0, int(x1)), min(width, int(x2) + 1)
        top, bottom = max(0, int(y1)), min(height, int(y2) + 1)
        if x2 <= x1 or y2 <= y1 or left >= right or top >= bottom:
            continue
        rows, columns = mask.shape
        down = _shares(np.arange(top, bottom), y1, y2, rows)
        across = _shares(np.arange(left, right), x1, x2, columns)
        canvas[top:bottom, left:right] = down @ mask.astype(np.float32) @ across.T >= threshold
    return whole


def _shares(pixels: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    """How much of every cell's value each pixel takes, in one direction: P×cells."""
    place = (pixels + 0.5 - low) / (high - low) * cells - 0.5  # in cells, from the first's centre
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)
