"""What a network found, on its way from the input to the picture."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vovnet.detect.masks import paste_masks
from vovnet.detections import Detections
from vovnet.input_spec import Placement


class Found(NamedTuple):
    """One image's detections in input pixels: boxes K×4 xyxy, scores K, labels K; best first.

    `masks` K×S×S are probabilities, each filling its box, from a network that draws them;
    `mask_scores` K rank the masks where that is another order than the boxes'.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    mask_scores: np.ndarray | None = None


def in_image(
    found: Found, place: Placement, names: tuple[str, ...], path: Path | None = None
) -> Detections:
    """What was found in an input, in pixels of its image; nothing that lies wholly outside it."""
    boxes = place.to_image(found.boxes)
    there = (boxes[:, 2:] > boxes[:, :2]).all(1)
    detections = Detections(
        boxes[there],
        found.scores[there],
        found.labels[there],
        names=names,
        mask_scores=None if found.mask_scores is None else found.mask_scores[there],
        image_size=(place.height, place.width),
        path=path,
    )
    if found.masks is None:
        return detections
    # Not the clipped boxes: a mask fills the whole of its box.
    whole = place.to_image(found.boxes[there], clip=False)
    masks = paste_masks(found.masks[there], whole, (place.height, place.width))
    return replace(detections, masks=masks)
