"""Feature pyramids, and how regions of interest are cut out of them."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from vovnet.models.backbone import Backbone
from vovnet.models.layers import make_norm

group_norm = partial(make_norm, "group")


class Pyramid(nn.Module):
    """A backbone and torchvision's FPN on its taps: N×3×H×W to maps of `width` channels each.

    `top` "pool" adds one level by subsampling the last (Mask R-CNN), "conv" two by strided
    convolutions (FCOS). `strides` are those of the maps.
    """

    def __init__(self, backbone: Backbone, width: int, top: str) -> None:
        super().__init__()
        self.backbone = backbone
        extra = LastLevelMaxPool() if top == "pool" else LastLevelP6P7(width, width)
        channels = [tap.channels for tap in backbone.taps]
        self.fpn = FeaturePyramidNetwork(channels, width, extra, norm_layer=group_norm)
        strides = [tap.stride for tap in backbone.taps]
        for _ in range(1 if top == "pool" else 2):
            strides.append(2 * strides[-1])
        self.strides = tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        names = [str(tap.stride) for tap in self.backbone.taps]
        return list(self.fpn(dict(zip(names, self.backbone(images), strict=True))).values())


def sqrt_area(boxes: Tensor) -> Tensor:
    """The side of the square that is as large as each box: R from R×4 xyxy."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()


def canonical_levels(boxes: Tensor, count: int) -> Tensor:
    """The level, 0 (stride 4) to `count` - 1, that a box is cut from: ⌊2 + log2(√area / 224)⌋.

    Equation 1 of the FPN paper (arXiv 1612.03144): 224 pixels, ImageNet's size, at stride 16.
    """
    levels = torch.floor(2 + torch.log2(sqrt_area(boxes) / 224 + 1e-6))
    return levels.clamp(0, count - 1).long()


def pool_regions(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Sequence[Tensor],
    levels: Sequence[Tensor],
    size: int,
) -> Tensor:
    """Features of every box: R×C×size×size, image after image, by RoIAlign with 2×2 samples.

    `boxes` and `levels` hold one tensor an image: R×4 xyxy in input pixels, and each box's index
    into `maps`. Samples are aligned to pixel centres (as in detectron2, unlike torchvision's own
    detectors). Whatever the maps' precision, places are computed in that of the boxes: bf16 knows
    only every fourth pixel beyond 512.
    """
    image = [b.new_full((len(b), 1), i) for i, b in enumerate(boxes)]
    rois = torch.cat([torch.cat(image), torch.cat(list(boxes))], 1)
    kind = maps[0].dtype
    level = torch.cat(list(levels))
    pooled = None
    for index, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = (level == index).nonzero()[:, 0]
        seen = features.to(rois.dtype)  # torch has no RoIAlign of two precisions
        part = roi_align(seen, rois[here], size, 1 / stride, 2, True).to(kind)
        if pooled is None:
            pooled = part.new_zeros(len(rois), *part.shape[1:])
        pooled = pooled.index_copy(0, here, part)
    assert pooled is not None  # a pyramid has maps
    return pooled
