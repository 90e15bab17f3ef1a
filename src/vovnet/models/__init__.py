"""Every model by its name: detectors are families on backbones, the rest classifiers.

`_FAMILIES` here and the table in `trunks` are the program's one jump from a string to a class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.fetched import how_to_fetch
from vovnet.models import assembly, cifar, reference
from vovnet.models.backbone import Classifier
from vovnet.models.detector import Detector
from vovnet.models.layers import Norm, drop_before_head, replace_norms, take_channels
from vovnet.models.timm_backbone import PREFIX, create_timm_classifier
from vovnet.models.trunks import create_backbone, create_features, is_backbone, list_backbones

__all__ = [
    "create_backbone",
    "create_detector",
    "create_model",
    "default_num_classes",
    "list_backbones",
    "list_detectors",
    "list_models",
]


@dataclass(frozen=True)
class Family:
    """Detectors that differ in their backbone alone, named FAMILY-BACKBONE.

    `build` takes the detector's name, its backbone's and the class names. `trunks` are the
    backbones that are listed; any other that fits is built too. Without any the family has its
    own backbone, and is named by itself.
    """

    build: Callable[[str, str, tuple[str, ...]], Detector]
    trunks: tuple[str, ...] = ()
    background: bool = True  # softmax detectors count the background as a class


# RefineDet backbones: the paper's table 4, and a small one that a CPU can train.
_REFINED = (
    *("vovnet39", "vovnet57", "vovnet27_slim", "resnet50", "resnet101"),
    *("densenet161", "densenet201"),
)
_DENSE = ("vovnet27_slim", "vovnet27_slim_bottleneck", "densenet67", "densenet67_k48")
# From scratch as in the paper's table 5; V2 as in its released zoo; the lite ones of that zoo.
_REGIONS = ("vovnet39", "vovnet57", "vovnet19_slim", "vovnet39_v2", "resnet50", "resnet101")
_LITE = ("mobilenet_v2", "vovnet19_slim_dw", "vovnet19_dw", "vovnet19_slim", "vovnet19")
_MASKED = ("vovnet39_v2", "vovnet57_v2", "vovnet99")

_FAMILIES: dict[str, Family] = {
    "vovdet_nano": Family(partial(assembly.vovdet_detector, 256), background=False),
    "vovdet_small": Family(partial(assembly.vovdet_detector, 320), background=False),
    "dsod300": Family(partial(assembly.dsod_detector, True), _DENSE),
    "dsod300_plain": Family(partial(assembly.dsod_detector, False), ("vovnet27_slim",)),
    "ssd300": Family(partial(assembly.ssd_detector, "ssd300"), ("mobilenet_v1",)),
    "pelee304": Family(partial(assembly.ssd_detector, "pelee304"), ("peleenet",)),
    "refinedet320": Family(partial(assembly.refinedet_detector, 320), _REFINED),
    "refinedet512": Family(partial(assembly.refinedet_detector, 512), _REFINED),
    "fasterrcnn": Family(partial(assembly.rcnn_detector, 256, False), _REGIONS),
    "fasterrcnn_lite": Family(partial(assembly.rcnn_detector, 128, False), _LITE),
    "maskrcnn": Family(partial(assembly.rcnn_detector, 256, True), _REGIONS),
    "maskrcnn_lite": Family(partial(assembly.rcnn_detector, 128, True), _LITE),
    "centermask": Family(
        partial(assembly.centermask_detector, "centermask"), _MASKED, background=False
    ),
    "centermask_lite": Family(
        partial(assembly.centermask_detector, "centermask_lite"),
        (*_LITE, "vovnet39_v2"),
        background=False,
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern such as "vov*", sorted."""
    names = (*list_backbones(), *cifar.SPECS, *list_detectors())
    return sorted(name for name in names if fnmatchcase(name, pattern))


def list_detectors() -> list[str]:
    """Names of the models that are detectors, sorted; other pairs of a family and a backbone
    that fit each other are built as well."""
    return sorted(
        f"{family}-{trunk}" if trunk else family
        for family, value in _FAMILIES.items()
        for trunk in value.trunks or ("",)
    )


def _family(name: str) -> Family | None:
    """The family of a detector's name; None if the name is no detector's."""
    return _FAMILIES.get(name.partition("-")[0])


def default_num_classes(name: str) -> int:
    """ImageNet's 1000, CIFAR's 10; for a detector VOC's 20, or 21 with the background."""
    if family := _family(name):
        return 20 + family.background
    return 10 if name in cifar.SPECS else 1000


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    pretrained: bool = False,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    stem: Literal["pooled", "strided"] | None = None,
    identity: bool | None = None,
    ese: Literal["none", "last", "all"] | None = None,
    norm: Norm | None = None,
) -> nn.Module:
    """A freshly initialised model by name.

    A backbone's name gives a classifier with `num_classes` outputs (default 1000), or, with
    `num_classes=0`, the bare `Backbone` that returns feature maps; `norm` replaces its batch
    norms; `stem`, `identity` and `ese` override a VoVNet's spec. A detector's name gives a
    `Detector` with classes called "class0", ...; `num_classes` counts what the literature counts:
    with the background for softmax detectors such as DSOD (21 for VOC), without it for VoVDet.

    As in timm, a backbone takes images of `in_chans` channels and a classifier `drop_rate`, and
    `features_only` gives, whatever `num_classes`, a module that returns the list of feature maps
    at timm's taps, with timm's `feature_info`; `out_indices` chooses among them. `pretrained` is
    refused: nothing is downloaded but by `vovnet fetch`.

    Raises `UnknownNameError` for a name of no model, `VovnetError` for what cannot be built.
    """
    count = default_num_classes(name) if num_classes is None else num_classes
    given: dict[str, Any] = {"stem": stem, "identity": identity, "ese": ese, "norm": norm}
    changes = {key: value for key, value in given.items() if value is not None}
    if in_chans != 3:
        changes["in_chans"] = in_chans
    _check_options(name, num_classes, in_chans, drop_rate)
    timms = {"drop_rate": drop_rate, "features_only": features_only}
    family = _family(name)
    if family or name in cifar.SPECS:
        asked = [*changes, *(key for key, value in timms.items() if value)]
        if asked := asked + ["out_indices"] * (out_indices is not None):
            raise VovnetError(f"{name}: {', '.join(asked)} can be changed on backbones only")
    elif not is_backbone(name):
        raise UnknownNameError("model", name, list_models())
    if pretrained:
        raise VovnetError(f"{name}: {how_to_fetch(name)}")
    if family:
        objects = count - family.background
        if objects < 1:
            raise VovnetError(f"{name}: {count} classes leave no object class; give more")
        return create_detector(name, tuple(f"class{i}" for i in range(objects)))
    if features_only:
        return create_features(name, out_indices, **changes)
    if out_indices is not None:
        raise VovnetError(f"{name}: out_indices chooses feature maps; give features_only=True too")
    if count < 0 or (count == 0 and name in cifar.SPECS):
        raise VovnetError(f"{name}: cannot have {count} classes; give more")
    return _create_classifier(name, count, changes, drop_rate)


def _check_options(name: str, num_classes: int | None, in_chans: int, drop_rate: float) -> None:
    if isinstance(num_classes, bool):  # timm's second argument is `pretrained`
        raise VovnetError(f"{name}: the second argument is num_classes, a number; not a bool")
    if in_chans < 1:
        raise VovnetError(f"{name}: in_chans {in_chans}: must be at least 1")
    if not 0 <= drop_rate < 1:
        raise VovnetError(f"{name}: drop_rate {drop_rate}: must be at least 0 and below 1")


def _create_classifier(
    name: str, count: int, changes: dict[str, Any], drop_rate: float
) -> nn.Module:
    """A classifier, torchvision's and timm's with their own heads; the backbone for no classes."""
    if name in cifar.SPECS:
        return cifar.CifarNet(cifar.SPECS[name], count)
    theirs = name in reference.NETWORKS or name.startswith(PREFIX)
    if not (theirs and count) or changes.keys() - {"norm", "in_chans"}:
        backbone = create_backbone(name, **changes)
        return Classifier(backbone, count, drop_rate) if count else backbone
    in_chans = changes.get("in_chans", 3)
    if name in reference.NETWORKS:
        network = reference.NETWORKS[name][0](weights=None, num_classes=count)
        take_channels(network, in_chans)
        if drop_rate:
            drop_before_head(network, drop_rate)
    else:
        options = {"in_chans": in_chans} | ({"drop_rate": drop_rate} if drop_rate else {})
        network = create_timm_classifier(name.removeprefix(PREFIX), count, **options)
    if "norm" in changes:
        replace_norms(network, changes["norm"])
    return network


def create_detector(name: str, names: tuple[str, ...]) -> Detector:
    """A freshly initialised detector for the given class names (without a background).

    Raises `UnknownNameError` for a name that is not a detector's, `VovnetError` for a backbone
    that does not fit.
    """
    family = _family(name)
    trunk = name.partition("-")[2]
    if family is None or (family.trunks and not trunk):
        raise UnknownNameError("detector", name, list_detectors())
    if trunk and not family.trunks:
        raise VovnetError(f"{name}: has a backbone of its own; leave out -{trunk}")
    if not names:
        raise VovnetError(f"{name}: no class names; give at least one")
    return family.build(name, trunk, tuple(names))
