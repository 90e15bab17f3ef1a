"""Masks pasted with NumPy are those that torch's grid sampling gives."""

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from vovnet.detect.masks import paste_masks

HEIGHT, WIDTH = 40, 56


def sampled(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The bilinear value of the mask at every pixel's centre, zeros beyond its cells."""
    x1, y1, x2, y2 = box.tolist()
    x = (torch.arange(WIDTH, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(HEIGHT, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), 2)
    cells = torch.from_numpy(mask.astype(np.float64))[None, None]
    return grid_sample(cells, grid[None], align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(28, 28), (14, 7), (1, 1)])
def test_grid_sampling(seed, shape):
    rng = np.random.default_rng(seed)
    masks = rng.random((6, *shape), np.float32)
    corners = rng.uniform((-20, -20), (WIDTH, HEIGHT), (6, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.3, 45, (6, 2))], 1)
    boxes = boxes.astype(np.float32)
    pasted = paste_masks(masks, boxes, (HEIGHT, WIDTH))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for whole, mask, box in zip(pasted, masks, boxes, strict=True):
        inside = (columns > box[0]) & (columns < box[2]) & (rows > box[1]) & (rows < box[3])
        touched = (columns + 0.5 > box[0]) & (columns - 0.5 < box[2])
        touched &= (rows + 0.5 > box[1]) & (rows - 0.5 < box[3])
        value = sampled(mask, box)
        clear = inside & (abs(value - 0.5) > 1e-4)
        assert np.array_equal(whole[clear], value[clear] > 0.5)
        assert not whole[~touched].any()


def test_the_threshold_itself_is_drawn():
    box = np.array([[8, 8, 24, 24]], np.float32)
    half = np.full((1, 4, 4), 0.5, np.float32)
    assert paste_masks(half, box, (32, 32))[0, 10:22, 10:22].all()
    assert not paste_masks(half, box, (32, 32), threshold=0.6).any()


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 9], [9, 9, 5, 5], [-30, 0, -10, 9], [100, 0, 120, 9], [0, 90, 9, 99]]
)
def test_boxes_that_hold_no_pixel(box):
    whole = paste_masks(np.ones((1, 7, 7)), np.array([box], np.float32), (HEIGHT, WIDTH))
    assert whole.shape == (1, HEIGHT, WIDTH)
    assert not whole.any()


def test_no_mask_at_all():
    assert paste_masks(np.ones((0, 7, 7)), np.zeros((0, 4)), (4, 5)).shape == (0, 4, 5)
