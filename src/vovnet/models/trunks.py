"""Every backbone by its name: what a classifier stands on, and what a detector is built around."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.models import dsod_densenet, mobilenet, pelee, reference, vovnet
from vovnet.models.backbone import Backbone
from vovnet.models.features import BackboneFeatures, VoVNetFeatures
from vovnet.models.layers import Norm, replace_norms, take_channels
from vovnet.models.timm_backbone import PREFIX, TimmBackbone

# Beside the VoVNets and torchvision's networks, which have tables of their own.
_OTHERS: dict[str, Callable[[], Backbone]] = {
    **{name: partial(dsod_densenet.DSODDenseNet, s) for name, s in dsod_densenet.SPECS.items()},
    "mobilenet_v1": mobilenet.MobileNetV1,
    "peleenet": pelee.PeleeNet,
}


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows, sorted; timm's come on top, as timm:NAME."""
    return sorted((*vovnet.SPECS, *reference.NETWORKS, *_OTHERS))


def is_backbone(name: str) -> bool:
    """Whether a name is a backbone's; what follows timm: is for timm to know."""
    return name in list_backbones() or name.startswith(PREFIX)


def create_backbone(
    name: str,
    *,
    strides: Sequence[int] | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    identity: bool | None = None,
    ese: Literal["none", "last", "all"] | None = None,
    norm: Norm | None = None,
    in_chans: int = 3,
    caffe_stride: bool = False,
    timm_taps: bool = False,
) -> Backbone:
    """A freshly initialised backbone by name, timm:NAME for one of timm's.

    `strides` chooses the taps that its forward returns (default: all, without a VoVNet's stem);
    `norm` replaces its batch norms; `in_chans` is the number of an image's channels; `stem`,
    `identity` and `ese` override a VoVNet's spec; `caffe_stride` gives a ResNet the stride in its
    first 1×1, and changes no other backbone; `timm_taps` gives torchvision's networks the taps
    that timm's of the same name have.

    Raises `UnknownNameError` for an unknown name, `VovnetError` for a stride without a tap, or an
    override of what the backbone has not.
    """
    given: dict[str, Any] = {"stem": stem, "identity": identity, "ese": ese}
    changes = {key: value for key, value in given.items() if value is not None}
    if name in vovnet.SPECS:
        spec = replace(vovnet.SPECS[name], **changes)
        backbone: Backbone = vovnet.VoVNet(replace(spec, norm=norm or spec.norm))
    elif not is_backbone(name):
        raise UnknownNameError("backbone", name, list_backbones())
    elif changes:
        raise VovnetError(f"{name}: {', '.join(changes)} can be changed on VoVNets only")
    elif name.startswith(PREFIX):
        backbone = TimmBackbone(name.removeprefix(PREFIX), in_chans)
    elif name in reference.NETWORKS:
        taps = reference.timm_taps(name) if timm_taps else None
        backbone = reference.ReferenceBackbone(name, caffe_stride=caffe_stride, taps=taps)
    else:
        backbone = _OTHERS[name]()
    backbone.name = name
    backbone.in_chans = in_chans
    if not name.startswith(PREFIX):  # timm's has been made for them
        take_channels(backbone, in_chans)
    if norm is not None:
        replace_norms(backbone, norm)
    if strides is not None:
        backbone.select_strides(strides)
    return backbone


def create_features(
    name: str, out_indices: int | Sequence[int] | None = None, **changes: Any
) -> nn.Module:
    """A backbone as timm's `features_only=True` gives it; `changes` are `create_backbone`'s.

    Raises like `create_backbone`, and `VovnetError` for taps that do not exist.
    """
    backbone = create_backbone(name, **changes, timm_taps=True)
    if isinstance(backbone, vovnet.VoVNet):
        return VoVNetFeatures(backbone, out_indices)
    return BackboneFeatures(backbone, out_indices)
