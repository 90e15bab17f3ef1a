"""MobileNetV1 (arXiv 1704.04861 table 1): depthwise-separable convolutions."""

from torch import Tensor, nn

from vovnet.models.backbone import Backbone, FeatureInfo
from vovnet.models.layers import ConvNorm, init_weights

# (output channels, stride) of the thirteen separable layers after the 32-channel stem.
_LAYERS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *(((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)


class DepthwiseSeparable(nn.Module):
    """Depthwise 3×3, BN, ReLU, pointwise 1×1, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = ConvNorm(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class MobileNetV1(Backbone):
    """Taps are the last maps of strides 4, 8, 16 and 32: 128, 256, 512 and 1024 channels."""

    def __init__(self) -> None:
        info = [FeatureInfo(f"stride{4 * 2**i}", 128 * 2**i, 4 * 2**i) for i in range(4)]
        super().__init__(info, range(4))
        stages: list[nn.Sequential] = [nn.Sequential(ConvNorm(3, 32, 3, 2))]
        width = 32
        for channels, stride in _LAYERS:
            if stride == 2:
                stages.append(nn.Sequential())
            stages[-1].append(DepthwiseSeparable(width, channels, stride))
            width = channels
        self.stages = nn.ModuleList(stages)
        init_weights(self, "kaiming")

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = images, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[1:][i] for i in self.out_indices]
