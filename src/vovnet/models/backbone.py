"""What every backbone offers, so that any of them fits any neck."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vovnet.errors import VovnetError


class FeatureInfo(NamedTuple):
    """One feature tap of a backbone: its name, channels, and stride in input pixels."""

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """N×3×H×W images to a list of feature maps, one for each chosen tap, in order of stride.

    `feature_info` describes every tap that there is, `taps` those that `forward` returns. Raises
    `VovnetError` for a tap that does not exist.
    """

    name = "backbone"  # what errors call it; `create_backbone` says it better
    in_chans = 3  # channels of an image; `create_backbone` makes backbones for other images too

    def __init__(self, feature_info: Sequence[FeatureInfo], out_indices: Sequence[int]) -> None:
        super().__init__()
        self.feature_info = tuple(feature_info)
        self.select(out_indices)

    def select(self, out_indices: Sequence[int]) -> None:
        """Choose the taps that `forward` returns, by their place in `feature_info`."""
        unknown = [i for i in out_indices if not 0 <= i < len(self.feature_info)]
        if unknown:
            last = len(self.feature_info) - 1
            raise VovnetError(f"{self.name}: taps {unknown} do not exist; there are 0..{last}")
        self.out_indices = tuple(out_indices)
        self.taps = tuple(self.feature_info[i] for i in out_indices)

    def select_strides(self, strides: Sequence[int]) -> None:
        """Choose the last tap of each stride; raises `VovnetError` for a stride without one."""
        last = {info.stride: i for i, info in enumerate(self.feature_info)}
        missing = [s for s in strides if s not in last]
        if missing:
            raise VovnetError(
                f"{self.name}: no tap of stride {', '.join(map(str, missing))}; "
                f"there are {', '.join(map(str, sorted(last)))}"
            )
        self.select([last[s] for s in strides])

    def map_sides(self, side: int) -> tuple[int, ...]:
        """Cells along each side of every chosen tap, for side×side images; nothing is computed.

        Raises `VovnetError` for images that the backbone cannot take, as too small ones.
        """
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        shapes = {key: torch.empty_like(value, device="meta") for key, value in state.items()}
        images = torch.empty(2, self.in_chans, side, side, device="meta")
        try:
            maps = functional_call(self, shapes, images)
        except (RuntimeError, AssertionError) as error:  # say, a pool larger than its input
            reason = " ".join(str(error).split())
            raise VovnetError(f"{self.name}: cannot take {side}×{side} pixels: {reason}") from None
        return tuple(x.shape[-1] for x in maps)


class Classifier(nn.Module):
    """A backbone's last feature map, averaged, and one linear layer: N×classes logits.

    In training, `drop_rate` is the share of the averages that dropout sets to zero.
    """

    def __init__(self, backbone: Backbone, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(backbone.taps[-1].channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.drop(self.backbone(images)[-1].mean((2, 3))))
