"""PeleeNet (arXiv 1804.06882): a small DenseNet of two-way dense layers, Conv-BN-ReLU."""

import torch
from torch import Tensor, nn

from vovnet.models.backbone import Backbone, FeatureInfo
from vovnet.models.layers import ConvNorm, init_weights

_LAYERS = (3, 4, 8, 6)  # dense layers in each stage
_BOTTLENECK = (1, 2, 4, 4)  # width of the 1×1s, in units of half the growth
_GROWTH = 32


class Stem(nn.Module):
    """3×3/2, then a learned and a pooled branch at stride 4, mixed by a 1×1 (figure 2)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = ConvNorm(3, width, 3, 2)
        self.learned = nn.Sequential(
            ConvNorm(width, width // 2, 1), ConvNorm(width // 2, width, 3, 2)
        )
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.mix = ConvNorm(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.mix(torch.cat([self.learned(x), self.pool(x)], 1))


class TwoWayDense(nn.Module):
    """Adds half the growth seen through one 3×3 and half seen through two (figure 1)."""

    def __init__(self, in_channels: int, bottleneck: int) -> None:
        super().__init__()
        half = _GROWTH // 2
        self.near = nn.Sequential(ConvNorm(in_channels, bottleneck, 1), ConvNorm(bottleneck, half))
        self.far = nn.Sequential(
            ConvNorm(in_channels, bottleneck, 1), ConvNorm(bottleneck, half), ConvNorm(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.near(x), self.far(x)], 1)


class PeleeNet(Backbone):
    """Taps are the stages' transitions before their pool: 128, 256, 512, 704 channels at
    strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        widths = [32]
        for count in _LAYERS:
            widths.append(widths[-1] + count * _GROWTH)
        info = [FeatureInfo(f"stage{i + 1}", widths[i + 1], 4 * 2**i) for i in range(4)]
        super().__init__(info, range(4))
        self.stem = Stem()
        # As Caffe rounds: 19 cells to 10. There are no pads to count in torch, but ncnn would count
        # the cells beyond the edge.
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.stages = nn.ModuleList()
        for count, factor, width, out in zip(
            _LAYERS, _BOTTLENECK, widths[:-1], widths[1:], strict=True
        ):
            layers: list[nn.Module] = [
                TwoWayDense(width + i * _GROWTH, factor * _GROWTH // 2) for i in range(count)
            ]
            self.stages.append(nn.Sequential(*layers, ConvNorm(out, out, 1)))
        init_weights(self, "kaiming")

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.stem(images), []
        for number, stage in enumerate(self.stages):
            x = stage(self.pool(x) if number else x)
            maps.append(x)
        return [maps[i] for i in self.out_indices]
