"""Every model by its name. `create_model` holds the program's one jump from a string to a class."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from vovnet.boxes.anchors import prior_boxes
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.losses.multibox import MultiBoxLoss
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models import dsod, vovdet, vovnet
from vovnet.models.detector import Detector, PointDecoder, PriorDecoder
from vovnet.models.input_spec import InputSpec
from vovnet.models.layers import Norm

# Mean of the paper's training (BGR 104, 117, 123), no scaling; and a plain mid-grey scaling.
_CAFFE = {"mean": (123.0, 117.0, 104.0), "std": (1.0, 1.0, 1.0)}
_GREY = {"mean": (114.0, 114.0, 114.0), "std": (58.0, 58.0, 58.0)}


def _dsod_vovnet(name: str, backbone: str, names: tuple[str, ...]) -> Detector:
    levels = dsod.VOVNET_PRIORS
    priors = prior_boxes(levels)
    return Detector(
        name,
        dsod.DSODVoVNet(vovnet.SPECS[backbone], len(names) + 1, levels),
        MultiBoxLoss(priors),
        PriorDecoder(priors),
        InputSpec((300, 300), "warp", **_CAFFE),
        names,
    )


def _vovdet(name: str, size: int, names: tuple[str, ...]) -> Detector:
    return Detector(
        name,
        vovdet.VoVDet(vovdet.SPECS[name], len(names)),
        TaskAlignedLoss(vovdet.STRIDES),
        PointDecoder(vovdet.STRIDES),
        InputSpec((size, size), "letterbox", **_GREY, multiple=32),
        names,
    )


_DETECTORS: dict[str, Callable[[tuple[str, ...]], Detector]] = {
    "dsod300-vovnet27_slim": lambda names: _dsod_vovnet(
        "dsod300-vovnet27_slim", "vovnet27_slim", names
    ),
    "vovdet_nano": lambda names: _vovdet("vovdet_nano", 256, names),
}

# Softmax detectors whose `num_classes`, as the literature counts, includes the background.
_WITH_BACKGROUND = {"dsod300-vovnet27_slim"}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern such as "vov*", sorted."""
    return sorted(n for n in (*vovnet.SPECS, *_DETECTORS) if fnmatchcase(n, pattern))


def list_detectors() -> list[str]:
    """Names of the models that are detectors, sorted."""
    return sorted(_DETECTORS)


def default_num_classes(name: str) -> int:
    """ImageNet's 1000 for a backbone; for a detector VOC's 20, or 21 where background counts."""
    return 20 + (name in _WITH_BACKGROUND) if name in _DETECTORS else 1000


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

    A backbone's name gives a `Classifier` with `num_classes` outputs (default 1000), or, with
    `num_classes=0`, the bare `VoVNet` that returns feature maps; `stem`, `identity`, `ese` and
    `norm` override its spec. A detector's name gives a `Detector` with classes called "class0",
    ...; `num_classes` counts what the literature counts: with the background for DSOD (21 for
    VOC), without it for VoVDet.

    Raises `UnknownNameError` for a name that is not in `list_models()`, `VovnetError` for what
    cannot be built.
    """
    count = default_num_classes(name) if num_classes is None else num_classes
    given: dict[str, Any] = {"stem": stem, "identity": identity, "ese": ese, "norm": norm}
    changes = {key: value for key, value in given.items() if value is not None}
    if name in _DETECTORS:
        if changes:
            raise VovnetError(f"{name}: {', '.join(changes)} can be changed on backbones only")
        objects = count - (name in _WITH_BACKGROUND)
        if objects < 1:
            raise VovnetError(f"{name}: {count} classes leave no object class; give more")
        return create_detector(name, tuple(f"class{i}" for i in range(objects)))
    if name not in vovnet.SPECS:
        raise UnknownNameError("model", name, list_models())
    if count < 0:
        raise VovnetError(f"{name}: num_classes must be 0 (features only) or more, not {count}")
    backbone = vovnet.VoVNet(replace(vovnet.SPECS[name], **changes))
    return vovnet.Classifier(backbone, count) if count else backbone


def create_detector(name: str, names: tuple[str, ...]) -> Detector:
    """A freshly initialised detector for the given class names (without a background).

    Raises `UnknownNameError` for a name that is not a detector's.
    """
    if name not in _DETECTORS:
        raise UnknownNameError("detector", name, list_detectors())
    return _DETECTORS[name](tuple(names))
