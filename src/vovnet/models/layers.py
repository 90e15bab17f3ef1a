"""Layers that every network here is built from. Attribute names follow timm's state-dict keys."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from vovnet.models.sync_norm import SyncBatchNorm2d

Norm = Literal["batch", "group", "sync", "frozen"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation layer for N×C×H×W: batch, group (32 groups), synchronised or frozen batch.

    Group normalisation uses the most groups up to 32 that divide `channels`.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "sync":
        return SyncBatchNorm2d(channels)
    if kind == "frozen":
        return FrozenBatchNorm2d(channels)
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def replace_norms(network: nn.Module, kind: Norm) -> None:
    """Put fresh norms of another kind in the place of all batch norms, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = make_norm(kind, child.num_features)
                act = getattr(child, "act", None)  # timm's norms hold their activation
                setattr(module, name, norm if act is None else nn.Sequential(norm, act))


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, ReLU; "same" padding for odd kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        norm: Norm = "batch",
        relu: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.bn = make_norm(norm, out_channels)
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """A residual block with projection: 1×1, 3×3, 1×1, Caffe-style stride in the first 1×1."""

    def __init__(self, in_channels: int, mid: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ConvNorm(in_channels, mid, 1, stride),
            ConvNorm(mid, mid, 3),
            ConvNorm(mid, out, 1, relu=False),
        )
        self.shortcut = ConvNorm(in_channels, out, 1, stride, relu=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.shortcut(x))


class SeparableConvNorm(nn.Module):
    """Depthwise k×k, pointwise 1×1, normalisation, ReLU; nothing between the two convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        norm: Norm = "batch",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            in_channels,
            in_channels,
            kernel,
            stride,
            padding=kernel // 2,
            groups=in_channels,
            bias=False,
        )
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = make_norm(norm, out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv_pw(self.conv_dw(x))))


class EffectiveSqueezeExcite(nn.Module):
    """eSE: channel gates from a global average and one C→C layer (CenterMask, arXiv 1911.06667)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc(x.mean((2, 3), keepdim=True)))


class L2Norm(nn.Module):
    """Each position's channel vector scaled to length one, times a learned scale per channel.

    From ParseNet by way of SSD; `initial` is 20 in DSOD (facts of its released code).
    """

    def __init__(self, channels: int, initial: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        # float32 under autocast: squares of bf16 activations lose too many digits.
        length = x.float().square().sum(1, keepdim=True).add(1e-10).rsqrt()
        return x * (length * self.scale.view(1, -1, 1, 1)).to(x.dtype)


def bn_relu_conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> nn.Sequential:
    """DenseNet's order: normalise and activate first, then convolve."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=False),  # the input is also read elsewhere
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
    )


def rows_of_priors(x: Tensor, columns: int) -> Tensor:
    """N×(P·columns)×H×W to N×(H·W·P)×columns: the order of `prior_boxes`."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, columns)


def init_weights(network: nn.Module, convolution: Literal["kaiming", "xavier"]) -> None:
    """Initialise convolutions in place (Kaiming normal fan-out, or Xavier uniform over both fans,
    where Caffe's "xavier" takes the fan-in alone), biases to 0."""
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if convolution == "kaiming":
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def take_channels(network: nn.Module, in_chans: int) -> None:
    """Replace the first convolution, in place, by a fresh one for images of `in_chans` channels,
    unless it already takes them."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == in_chans:
        return
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        (old.stride[0], old.stride[1]),
        old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    init_weights(new, "kaiming")
    network.set_submodule(name, new)


class DroppedLinear(nn.Linear):
    """A linear layer behind a dropout: its tensors keep the names that they have without one."""

    drop_rate = 0.0

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.dropout(input, self.drop_rate, self.training))


def drop_before_head(network: nn.Module, drop_rate: float) -> None:
    """Give the classifier `network`, in place, this dropout: its own at another rate if it has
    one, else a new one before its last linear layer."""
    drops = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for module in drops:
        module.p = drop_rate
    if drops:
        return
    *_, (name, old) = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear))
    new = DroppedLinear(old.in_features, old.out_features)
    new.weight, new.bias, new.drop_rate = old.weight, old.bias, drop_rate
    network.set_submodule(name, new)


def fuse_norms(network: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution into it, in place, for inference.

    Relies on what all modules here keep to: a convolution and its norm are neighbouring children.
    The network must be in eval mode.
    """
    for module in network.modules():
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                # timm's norms hold the activation that follows them.
                setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
