"""Masks of regions on their way into the image."""

import numpy as np

_SIDE = 28  # of a mask that fills its box


def masks_of_prototypes(
    coefficients: np.ndarray, prototypes: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The masks K×S×S, probabilities that fill K boxes, of coefficients K×M and prototypes M×h×w
    that cover an input of `size` (height, width), in whose pixels the boxes are."""
    count, height, width = prototypes.shape
    whole = (coefficients @ prototypes.reshape(count, -1)).reshape(-1, height, width)
    middles = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE
    spans = boxes[:, None, 2:] - boxes[:, None, :2]
    places = boxes[:, None, :2] + middles[:, None] * spans  # K×S×2, x and y
    places = places * np.array([width / size[1], height / size[0]], np.float32) - 0.5
    places = places.clip(0, [width - 1, height - 1])
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, [width - 1, height - 1])
    share = (places - low).astype(np.float32)
    each = np.arange(len(boxes))[:, None, None]

    def row(y: np.ndarray) -> np.ndarray:
        """Between the columns, in rows y K×S."""
        left, right = (whole[each, y[:, :, None], x[:, None, :, 0]] for x in (low, high))
        return left + (right - left) * share[:, None, :, 0]

    above, below = row(low[..., 1]), row(high[..., 1])
    logits = above + (below - above) * share[:, :, None, 1]
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


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
