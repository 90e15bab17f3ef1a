"""Any of timm's backbones, through its `features_only` face; needs the extra `timm`."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError
from vovnet.models.backbone import Backbone, FeatureInfo

PREFIX = "timm:"  # of such a backbone's name, as in timm:resnet18


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError:
        raise MissingExtraError("timm", "timm") from None
    return timm


def _known(name: str) -> ModuleType:
    """timm itself, if it has a model of that name; raises `UnknownNameError` otherwise."""
    timm = _timm()
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())
    return timm


def create_timm_classifier(name: str, num_classes: int, **options: Any) -> nn.Module:
    """timm's own classifier, with fresh weights; `name` is timm's, without the prefix, `options`
    are in_chans and drop_rate. Raises `VovnetError` if the model has no such option."""
    timm = _known(name)
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    except TypeError as error:
        raise VovnetError(f"timm's {name} does not take {', '.join(options)}: {error}") from None


class TimmBackbone(Backbone):
    """A timm model's feature maps N×C×H×W; `name` is timm's, without the prefix.

    Raises `MissingExtraError` without timm, `UnknownNameError` for a name that it does not know,
    `VovnetError` for a model of which it gives no feature maps.
    """

    def __init__(self, name: str, in_chans: int = 3) -> None:
        try:
            body = _known(name).create_model(
                name, pretrained=False, features_only=True, in_chans=in_chans
            )
        except (RuntimeError, AttributeError, NotImplementedError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise VovnetError(f"timm gives no feature maps of {name}: {reason}") from None
        info = body.feature_info
        taps = [*map(FeatureInfo, info.module_name(), info.channels(), info.reduction())]
        super().__init__(taps, range(len(taps)))
        self.body = body
        self.channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"  # as in swin

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.body(images)
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return [maps[i] for i in self.out_indices]
