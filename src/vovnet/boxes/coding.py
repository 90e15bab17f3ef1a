"""Box encodings. All boxes are xyxy in pixels unless a name says otherwise."""

import math

import torch
from torch import Tensor
from torchvision.ops import box_convert

# A decoded side is at most this many times its prior's; keeps exp() finite on wild predictions.
_MAX_LOG_SCALE = math.log(1000.0 / 16)


def encode_offsets(boxes: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """SSD offsets of `boxes` (A×4 xyxy) against `priors` (A×4 cxcywh): A×4.

    Centre shifts in units of the prior's sides over `variances[0]`, log side ratios over
    `variances[1]` (SSD, arXiv 1512.02325 equation 2, with the released code's variances).
    """
    centres = box_convert(boxes, "xyxy", "cxcywh")
    shift = (centres[:, :2] - priors[:, :2]) / priors[:, 2:] / variances[0]
    scale = torch.log(centres[:, 2:] / priors[:, 2:]) / variances[1]
    return torch.cat([shift, scale], 1)


def decode_offsets(offsets: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The inverse of `encode_offsets`: ...×A×4 offsets to ...×A×4 xyxy; priors A×4 or ...×A×4."""
    centre = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    log_scale = (offsets[..., 2:] * variances[1]).clamp(max=_MAX_LOG_SCALE)
    size = priors[..., 2:] * torch.exp(log_scale)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def decode_distances(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes ...×A×4 from distances (left, top, right, bottom; in strides) to A points (x, y)."""
    pixels = distances * strides[:, None]
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], -1)
