"""The backbones that the paper compares with, taken from torchvision and given feature taps.

ResNet, DenseNet, MobileNetV2, ShuffleNetV2, SqueezeNet and AlexNet keep torchvision's modules and
state-dict keys. Taps are the last map of each stride; DenseNet's are the transitions' 1×1 outputs
before their pool, then the last dense block.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision import models as tv
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import Bottleneck

from vovnet.models.backbone import Backbone, FeatureInfo

# Builder of the whole torchvision network, and its taps: (graph node, channels, stride).
_Taps = tuple[tuple[str, int, int], ...]
_RESNET: _Taps = (
    ("layer1", 256, 4),
    ("layer2", 512, 8),
    ("layer3", 1024, 16),
    ("layer4", 2048, 32),
)


def _densenet(channels: tuple[int, int, int, int]) -> _Taps:
    nodes = [f"features.transition{i}.conv" for i in (1, 2, 3)]
    return tuple(zip([*nodes, "relu"], channels, (4, 8, 16, 32), strict=True))


def _shufflenet(stage2: int, last: int) -> _Taps:
    return (
        ("maxpool", 24, 4),
        ("stage2", stage2, 8),
        ("stage3", 2 * stage2, 16),
        ("conv5", last, 32),
    )


NETWORKS: dict[str, tuple[Callable[..., nn.Module], _Taps]] = {
    "resnet50": (tv.resnet50, _RESNET),
    "resnet101": (tv.resnet101, _RESNET),
    "densenet121": (tv.densenet121, _densenet((128, 256, 512, 1024))),
    "densenet161": (tv.densenet161, _densenet((192, 384, 1056, 2208))),
    "densenet201": (tv.densenet201, _densenet((128, 256, 896, 1920))),
    "mobilenet_v2": (
        tv.mobilenet_v2,
        (
            ("features.3", 24, 4),
            ("features.6", 32, 8),
            ("features.13", 96, 16),
            ("features.18", 1280, 32),
        ),
    ),
    "shufflenet_v2_x0_5": (tv.shufflenet_v2_x0_5, _shufflenet(48, 1024)),
    "shufflenet_v2_x1_0": (tv.shufflenet_v2_x1_0, _shufflenet(116, 1024)),
    "shufflenet_v2_x1_5": (tv.shufflenet_v2_x1_5, _shufflenet(176, 1024)),
    "shufflenet_v2_x2_0": (tv.shufflenet_v2_x2_0, _shufflenet(244, 2048)),
    "squeezenet1_0": (
        tv.squeezenet1_0,
        (("features.5", 256, 4), ("features.10", 512, 8), ("features.12", 512, 16)),
    ),
    "squeezenet1_1": (
        tv.squeezenet1_1,
        (("features.4", 128, 4), ("features.7", 256, 8), ("features.12", 512, 16)),
    ),
    "alexnet": (
        tv.alexnet,
        (("features.1", 64, 4), ("features.4", 192, 8), ("features.11", 256, 16)),
    ),
}


def timm_taps(name: str) -> _Taps | None:
    """The taps that timm has of its network of that name, as nodes of torchvision's; None if timm
    has no such network. They begin at stride 2; DenseNet's are its blocks' outputs."""
    taps = NETWORKS[name][1]
    if taps is _RESNET:
        return (("relu", 64, 2), *taps)
    if not name.startswith("densenet"):
        return None
    width = 96 if name == "densenet161" else 64
    blocks = (
        (f"features.denseblock{i + 1}.cat", 2 * channels, stride)
        for i, (_, channels, stride) in enumerate(taps[:3])
    )
    return (("features.relu0", width, 2), *blocks, taps[3])


class ReferenceBackbone(Backbone):
    """One of torchvision's networks as a backbone: its classifier is left out."""

    def __init__(self, name: str, *, caffe_stride: bool = False, taps: _Taps | None = None) -> None:
        """`caffe_stride` puts ResNet's stride into a bottleneck's first 1×1, as the paper's has;
        `taps` are others than the network's usual ones."""
        build, usual = NETWORKS[name]
        taps = taps or usual
        super().__init__([FeatureInfo(*tap) for tap in taps], range(len(taps)))
        network = build(weights=None)
        if caffe_stride:
            _move_strides(network)
        nodes = {info.name: info.name for info in self.feature_info}
        self.body = create_feature_extractor(network, nodes)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return [features[tap.name] for tap in self.taps]


def _move_strides(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
