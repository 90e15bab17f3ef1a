"""Every model by its name. `create_model` holds the program's one jump from a string to a class."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.models import assembly, cifar, mobilenet, pelee, reference, vovnet
from vovnet.models.backbone import Backbone, Classifier
from vovnet.models.detector import Detector
from vovnet.models.layers import Norm

_BACKBONES: dict[str, Callable[[], Backbone]] = {
    **{name: partial(vovnet.VoVNet, spec) for name, spec in vovnet.SPECS.items()},
    **{name: partial(reference.ReferenceBackbone, name) for name in reference.NETWORKS},
    "mobilenet_v1": mobilenet.MobileNetV1,
    "peleenet": pelee.PeleeNet,
}

# RefineDet backbones: the paper's table 4, and a small one that a CPU can train.
_REFINED = (
    *("vovnet39", "vovnet57", "vovnet27_slim", "resnet50", "resnet101"),
    *("densenet161", "densenet201"),
)

# A softmax detector counts the background as a class, a sigmoid detector has none.
_SIGMOID: dict[str, Callable[[tuple[str, ...]], Detector]] = {
    "vovdet_nano": partial(assembly.vovdet_detector, "vovdet_nano", 256),
}
_SOFTMAX: dict[str, Callable[[tuple[str, ...]], Detector]] = {
    **{
        f"dsod300-{spec}": partial(assembly.dsod_on_vovnet, f"dsod300-{spec}", spec, True)
        for spec in ("vovnet27_slim", "vovnet27_slim_bottleneck")
    },
    "dsod300_plain-vovnet27_slim": partial(
        assembly.dsod_on_vovnet, "dsod300_plain-vovnet27_slim", "vovnet27_slim", False
    ),
    **{
        f"dsod300-{spec}": partial(assembly.dsod_on_densenet, f"dsod300-{spec}", spec)
        for spec in ("densenet67", "densenet67_k48")
    },
    **{
        f"refinedet{size}-{trunk}": partial(
            assembly.refinedet_detector, f"refinedet{size}-{trunk}", size, trunk
        )
        for size in (320, 512)
        for trunk in _REFINED
    },
}
_DETECTORS = _SIGMOID | _SOFTMAX


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern such as "vov*", sorted."""
    return sorted(n for n in (*_BACKBONES, *cifar.SPECS, *_DETECTORS) if fnmatchcase(n, pattern))


def list_detectors() -> list[str]:
    """Names of the models that are detectors, sorted."""
    return sorted(_DETECTORS)


def default_num_classes(name: str) -> int:
    """ImageNet's 1000, CIFAR's 10; for a detector VOC's 20, or 21 with the background."""
    if name in cifar.SPECS:
        return 10
    return 20 + (name in _SOFTMAX) if name in _DETECTORS else 1000


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    stem: Literal["pooled", "strided"] | None = None,
    identity: bool | None = None,
    ese: Literal["none", "last", "all"] | None = None,
    norm: Norm | None = None,
) -> nn.Module:
    """A freshly initialised model by name.

    A backbone's name gives a classifier with `num_classes` outputs (default 1000), or, with
    `num_classes=0`, the bare `Backbone` that returns feature maps; `stem`, `identity`, `ese` and
    `norm` override a VoVNet's spec. A detector's name gives a `Detector` with classes called
    "class0", ...; `num_classes` counts what the literature counts: with the background for
    softmax detectors such as DSOD (21 for VOC), without it for VoVDet.

    Raises `UnknownNameError` for a name that is not in `list_models()`, `VovnetError` for what
    cannot be built.
    """
    if name not in list_models():
        raise UnknownNameError("model", name, list_models())
    count = default_num_classes(name) if num_classes is None else num_classes
    given: dict[str, Any] = {"stem": stem, "identity": identity, "ese": ese, "norm": norm}
    changes = {key: value for key, value in given.items() if value is not None}
    if changes and name not in vovnet.SPECS:
        raise VovnetError(f"{name}: {', '.join(changes)} can be changed on VoVNets only")
    if name in _DETECTORS:
        objects = count - (name in _SOFTMAX)
        if objects < 1:
            raise VovnetError(f"{name}: {count} classes leave no object class; give more")
        return create_detector(name, tuple(f"class{i}" for i in range(objects)))
    if count < 0 or (count == 0 and name in cifar.SPECS):
        raise VovnetError(f"{name}: cannot have {count} classes; give more")
    return _create_classifier(name, count, changes)


def _create_classifier(name: str, count: int, changes: dict[str, Any]) -> nn.Module:
    if name in vovnet.SPECS:
        backbone: Backbone = vovnet.VoVNet(replace(vovnet.SPECS[name], **changes))
    elif name in cifar.SPECS:
        return cifar.CifarNet(cifar.SPECS[name], count)
    elif name in reference.NETWORKS and count:
        return reference.NETWORKS[name][0](weights=None, num_classes=count)
    else:
        backbone = _BACKBONES[name]()
    return Classifier(backbone, count) if count else backbone


def create_detector(name: str, names: tuple[str, ...]) -> Detector:
    """A freshly initialised detector for the given class names (without a background).

    Raises `UnknownNameError` for a name that is not a detector's.
    """
    if name not in _DETECTORS:
        raise UnknownNameError("detector", name, list_detectors())
    return _DETECTORS[name](tuple(names))
