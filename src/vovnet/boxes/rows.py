"""The boxes of a batch in one list, its rows: a GPU gets a few large operations where it would get
many small ones for every image, and a crowded image costs the others nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vovnet.boxes import iou


class BatchRows:
    """All boxes of N images, given as N tensors G×4 xyxy, and where each row comes from.

    `boxes` is M×4, `image` M, `all` the rows' own numbers, 0 to M-1.
    """

    def __init__(self, boxes: Sequence[Tensor]) -> None:
        self.boxes = torch.cat(list(boxes)).float()
        device = self.boxes.device
        self.all = torch.arange(len(self.boxes), device=device)
        counts = torch.tensor([len(b) for b in boxes])
        self.image = torch.arange(len(boxes)).repeat_interleave(counts).to(device)
        self._corners = self.boxes.T.contiguous()

    def __len__(self) -> int:
        return len(self.boxes)

    def parts(self, rows: Tensor, width: int) -> tuple[Tensor, ...]:
        """Rows in parts whose overlaps with `width` boxes each may be held together: 16 times as
        many on a GPU, where it is starting that takes long."""
        pairs = iou.PAIRS * (16 if rows.is_cuda else 1)
        return rows.split(max(1, pairs // max(1, width)))

    def overlap(self, rows: Tensor, others: Tensor) -> Tensor:
        """IoU of R rows with A boxes of their images: R×A.

        `others` is 4×N×A, or 4×A where all images have the same: x1, y1, x2 and y2, each with
        neighbours beside each other in memory.
        """
        theirs = others if others.ndim == 2 else [corner[self.image[rows]] for corner in others]
        return iou.overlaps(self._corners[:, rows, None], theirs)
