"""DSOD's own backbone, a DenseNet made for detection (arXiv 1708.01241; released code).

Named DS/A-B-k-θ by first convolution's channels, bottleneck channels, growth and compression. The
VoVNet paper's DenseNet-67 is DS/64-64-16-1; the full DSOD300's is DS/64-192-48-1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vovnet.models.backbone import Backbone, FeatureInfo
from vovnet.models.layers import ConvNorm, bn_relu_conv, init_weights


@dataclass(frozen=True)
class DSODDenseNetSpec:
    """Widths of the backbone; transitions keep all channels (θ = 1)."""

    bottleneck: int
    growth: int
    stem: int = 64
    layers: tuple[int, int, int, int] = (6, 8, 8, 8)


SPECS = {
    "densenet67": DSODDenseNetSpec(bottleneck=64, growth=16),
    "densenet67_k48": DSODDenseNetSpec(bottleneck=192, growth=48),
}


class DenseLayer(nn.Module):
    """BN-ReLU-1×1, BN-ReLU-3×3; the result is appended to the input."""

    def __init__(self, in_channels: int, bottleneck: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            bn_relu_conv(in_channels, bottleneck, 1), bn_relu_conv(bottleneck, growth, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


class DSODDenseNet(Backbone):
    """N×3×H×W to the detector's first two sources, at strides 8 and 16.

    The first is the second transition's output; the second joins 256 channels from the end of
    the backbone with 256 pooled from the first.
    """

    def __init__(self, spec: DSODDenseNetSpec) -> None:
        widths = [2 * spec.stem]
        for count in spec.layers:
            widths.append(widths[-1] + count * spec.growth)
        super().__init__(
            [FeatureInfo("first", widths[2], 8), FeatureInfo("second", 512, 16)], (0, 1)
        )
        self.stem = nn.Sequential(
            ConvNorm(3, spec.stem, 3, 2),
            ConvNorm(spec.stem, spec.stem),
            ConvNorm(spec.stem, 2 * spec.stem),
        )
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        outputs = (*widths[1:4], 256)
        for count, width, total, out in zip(
            spec.layers, widths[:-1], widths[1:], outputs, strict=True
        ):
            self.blocks.append(
                nn.Sequential(
                    *(
                        DenseLayer(width + i * spec.growth, spec.bottleneck, spec.growth)
                        for i in range(count)
                    )
                )
            )
            self.transitions.append(bn_relu_conv(total, out, 1))
        self.pooled = bn_relu_conv(widths[2], 256, 1)
        init_weights(self, "xavier")

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.pool(self.stem(images))
        x = self.pool(self.transitions[0](self.blocks[0](x)))
        first = self.transitions[1](self.blocks[1](x))
        smaller = self.pool(first)
        x = self.transitions[2](self.blocks[2](smaller))
        x = self.transitions[3](self.blocks[3](x))
        maps = [first, torch.cat([x, self.pooled(smaller)], 1)]
        return [maps[i] for i in self.out_indices]
