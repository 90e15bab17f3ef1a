"""The paper's CIFAR-10 study: DenseNet-40 and the OSA networks put in its place (section 3.2).

The paper names the OSA modules "(layers/channels)" but writes down no network around them. Here
everything but the aggregation is DenseNet-40's: a 3×3 stem of 16 channels, BN-ReLU-convolution
order, transitions that keep all channels; a third transition follows the last OSA module, as the
paper's figure 2 labels. That reading reproduces the paper's operations and nearly its memory
access (2.59 M elements for 5/43, printed 2.5 M).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vovnet.models.layers import bn_relu_conv


@dataclass(frozen=True)
class CifarSpec:
    """Three blocks of `layers` 3×3 convolutions with `growth` output channels each."""

    layers: int
    growth: int
    dense: bool  # every layer reads all before it, or (OSA) only the one before
    stem: int = 16


SPECS = {
    "densenet40_k12": CifarSpec(12, 12, dense=True),
    "osa_12x20": CifarSpec(12, 20, dense=False),
    "osa_5x43": CifarSpec(5, 43, dense=False),
}


class Block(nn.Module):
    """N×in×H×W to N×(in + layers·growth)×H×W: the input and every layer's output, concatenated."""

    def __init__(self, in_channels: int, spec: CifarSpec) -> None:
        super().__init__()
        self.dense = spec.dense
        step = spec.growth if spec.dense else 0
        widths = [in_channels + i * step for i in range(spec.layers)]
        if not spec.dense:
            widths[1:] = [spec.growth] * (spec.layers - 1)
        self.layers = nn.ModuleList(bn_relu_conv(width, spec.growth, 3) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1) if self.dense else features[-1]))
        return torch.cat(features, 1)


class CifarNet(nn.Module):
    """N×3×32×32 images to N×classes logits."""

    def __init__(self, spec: CifarSpec, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, spec.stem, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        width = spec.stem
        for number in range(3):
            self.blocks.append(Block(width, spec))
            width += spec.layers * spec.growth
            last = number == 2
            if last and spec.dense:
                continue
            pool = nn.Identity() if last else nn.AvgPool2d(2)
            self.transitions.append(nn.Sequential(bn_relu_conv(width, width, 1), pool))
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        """He initialisation, as DenseNet's CIFAR code has it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number < len(self.transitions):
                x = self.transitions[number](x)
        return self.head(self.norm(x).relu().mean((2, 3)))
