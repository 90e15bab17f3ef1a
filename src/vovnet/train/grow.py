"""Growing a trained VoVDet into a wider one that computes the same (after Net2Net, 1511.05641).

What the narrow one knows goes into the first channels of every layer. These do not see the new
channels at first (their weights for them are 0); the new channels, with fresh weights, see
everything. So training goes on where the narrow network stood, and finds room to learn more.
"""

from collections.abc import Sequence
from typing import Any

import torch

from vovnet.models.layers import EffectiveSqueezeExcite
from vovnet.models.vovdet import Neck, VoVDet
from vovnet.models.vovnet import VoVNet

Part = tuple[int, int]  # channels in the narrow network and in the wide one
Layer = Any  # torch's lists of modules do not tell what they hold


def can_grow(narrow: VoVDet, wide: VoVDet) -> bool:
    """Whether the two have the same layers, none of them narrower in `wide`."""
    own, other = narrow.state_dict(), wide.state_dict()
    return own.keys() == other.keys() and all(
        small <= large
        for key, value in own.items()
        for small, large in zip(value.shape, other[key].shape, strict=True)
    )


@torch.no_grad()
def grow(narrow: VoVDet, wide: VoVDet) -> None:
    """Make `wide`, freshly begun, compute what `narrow` does; see `can_grow`."""
    taps = _backbone(narrow.backbone, wide.backbone)
    width = _neck(narrow.neck, wide.neck, taps[2:])
    for small, large in zip(narrow.heads, wide.heads, strict=True):
        _head(small, large, width)


def _backbone(narrow: VoVNet, wide: VoVNet) -> list[Part]:
    """Fill the backbone; returns the widths of its taps."""
    part = (3, 3)
    for small, large in zip(narrow.stem, wide.stem, strict=True):
        part = _unit(small, large, [part])
    taps = [part]
    stages: Layer = zip(narrow.stages, wide.stages, strict=True)
    for stage, wider in stages:
        for small, large in zip(stage.blocks, wider.blocks, strict=True):
            part = _module(small, large, [part])
        taps.append(part)
    return taps


def _neck(narrow: Neck, wide: Neck, taps: Sequence[Part]) -> Part:
    width = (0, 0)
    for small, large, tap in zip(narrow.laterals, wide.laterals, taps, strict=True):
        width = _unit(small, large, [tap])
    for small, large in zip(narrow.shrink, wide.shrink, strict=True):
        _unit(small, large, [width])
    for small, large in zip([*narrow.down, *narrow.up], [*wide.down, *wide.up], strict=True):
        _module(small, large, [width, width])
    return width


def _head(narrow: Layer, wide: Layer, width: Part) -> None:
    for small, large in ((narrow.classes, wide.classes), (narrow.box, wide.box)):
        *units, last = zip(small, large, strict=True)
        for unit, wider in units:
            _unit(unit, wider, [width])
        _convolution(*last, [width])


def _module(narrow: Layer, wide: Layer, parts: Sequence[Part]) -> Part:
    """Fill an OSA module whose input is concatenated from `parts`; returns its output's widths."""
    seen, features = parts, [*parts]
    for small, large in zip(narrow.conv_mid, wide.conv_mid, strict=True):
        seen = [_unit(small, large, seen)]
        features += seen
    out = _unit(narrow.conv_concat, wide.conv_concat, features)
    if isinstance(narrow.attn, EffectiveSqueezeExcite):
        _convolution(narrow.attn.fc, wide.attn.fc, [out])
    return out


def _unit(narrow: Layer, wide: Layer, parts: Sequence[Part]) -> Part:
    _convolution(narrow.conv, wide.conv, parts)
    norm = wide.bn.state_dict()
    for key, value in narrow.bn.state_dict().items():
        if value.dim():
            norm[key][: len(value)] = value
        else:
            norm[key].copy_(value)
    return narrow.conv.out_channels, wide.conv.out_channels


def _convolution(narrow: Layer, wide: Layer, parts: Sequence[Part]) -> None:
    columns, start = [], 0
    for small, large in parts:
        columns.append(torch.arange(start, start + small))
        start += large
    known = narrow.out_channels
    wide.weight[:known] = 0.0
    wide.weight[:known, torch.cat(columns)] = narrow.weight
    if narrow.bias is not None and wide.bias is not None:
        wide.bias[:known] = narrow.bias
