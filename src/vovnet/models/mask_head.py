"""The head that draws masks (Mask R-CNN, CenterMask)."""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from vovnet.models.layers import make_norm

POOLED = 14  # cells of a region's features; its mask has twice as many
MASK = 2 * POOLED


class SpatialAttention(nn.Module):
    """SAG of CenterMask: where to look, from the mean and the maximum over channels (eq. 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(seen).sigmoid()


class MaskHead(nn.Module):
    """R×C×14×14 features to R×classes×28×28 logits: 3×3s, one transposed 2×2, one 1×1.

    torchvision's modules; with `attention` CenterMask's gate stands before the enlargement.
    """

    def __init__(
        self, in_channels: int, width: int, convs: int, num_classes: int, attention: bool = False
    ) -> None:
        super().__init__()
        norm = partial(make_norm, "group")
        self.convs = MaskRCNNHeads(in_channels, (width,) * convs, 1, norm_layer=norm)
        self.attention = SpatialAttention() if attention else nn.Identity()
        self.predictor = MaskRCNNPredictor(width, width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.predictor(self.attention(self.convs(features)))


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """The mask of each region's own class: R×S×S from R×C×S×S and R labels."""
    # Not len(), which export takes for a constant.
    rows = torch.arange(labels.shape[0], device=labels.device)
    return masks[rows, labels]
