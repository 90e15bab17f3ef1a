"""Beginning a run from trained weights, whatever their classes, with parts that stay frozen."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vovnet.errors import UnknownNameError, WeightsError
from vovnet.models import create_detector
from vovnet.models.backbone import Backbone
from vovnet.models.convert import load_backbone
from vovnet.models.detector import Detector
from vovnet.models.vovdet import VoVDet
from vovnet.models.vovnet import VoVNet
from vovnet.models.weights import load_detector, load_metadata
from vovnet.shipped import weights_path
from vovnet.train.grow import can_grow, grow

_BACKBONE = "backbone."  # before the names of a backbone's tensors, wherever a network keeps it


class Transfer(NamedTuple):
    """How many tensors were taken over, the parts of the network that begin anew, whether it has
    grown (its first channels are the other network's), and what the two backbones do differently
    although their tensors fit."""

    kept: int
    anew: tuple[str, ...]
    grown: bool = False
    differing: tuple[str, ...] = ()

    def __str__(self) -> str:
        kept = f"{self.kept} tensors kept{', and grown wider' if self.grown else ''}"
        anew = f"; begun anew: {', '.join(self.anew)}" if self.anew else ", none begun anew"
        differing = "".join(f"; {what}" for what in self.differing)
        return kept + anew + differing


def begin_from(weights: str, target: Detector) -> Transfer:
    """Copy into `target` what fits of a detector's weights (a shipped name or a file), or of a
    backbone's as `vovnet convert` writes them. Raises `WeightsError` if nothing does."""
    path = weights_path(weights)
    if "num_classes" in load_metadata(path):
        return transfer_backbone(load_backbone(path), target)
    return transfer_weights(load_detector(path), target)


def transfer_weights(source: Detector, target: Detector) -> Transfer:
    """Copy into `target` every tensor of `source` that has the same name and shape there.

    What tells classes apart is only copied if both know the same classes in the same order. The
    two may be different models: those on one backbone share its tensors, and a VoVDet grows out of
    a narrower one. Raises `WeightsError` if nothing fits.
    """
    source, grown = _grown(source, target)
    of_classes = _class_tensors(target) if source.names != target.names else set()
    tensors = {k: v for k, v in _tensors(source.network).items() if k not in of_classes}
    kept = _take(tensors, target, source.name)
    pair = _backbone_of(source.network)[1], _backbone_of(target.network)[1]
    return kept._replace(grown=grown, differing=_differing(*pair))


def transfer_backbone(source: Backbone, target: Detector) -> Transfer:
    """Copy into `target`'s backbone every tensor of `source` that has the same name and shape."""
    tensors = {_BACKBONE + key: value for key, value in source.state_dict().items()}
    kept = _take(tensors, target, source.name)
    return kept._replace(differing=_differing(source, _backbone_of(target.network)[1]))


def _take(theirs: Mapping[str, Tensor], target: Detector, source: str) -> Transfer:
    own = _tensors(target.network)
    fitting = {k: theirs[k] for k, v in own.items() if k in theirs and theirs[k].shape == v.shape}
    learned = [key for key in own if not key.endswith("num_batches_tracked")]
    if not any(key in fitting for key in learned):
        raise WeightsError(
            f"weights of {source}: nothing in them fits {target.name}; start from weights of "
            "the same model or backbone"
        )
    for key, value in fitting.items():
        own[key].copy_(value)
    return Transfer(len(fitting), _parts_without(fitting.keys(), learned))


def _parts_without(kept: Collection[str], learned: Sequence[str]) -> tuple[str, ...]:
    """The largest parts of a network of whose tensors (`learned`) none is among those `kept`."""
    touched = {part for key in kept for part in _parts_of(key)}
    missing = (key for key in learned if key not in kept)
    parts = (next(part for part in _parts_of(key) if part not in touched) for key in missing)
    return tuple(dict.fromkeys(parts))


def _parts_of(key: str) -> Iterator[str]:
    """Of a tensor's name "a.b.c": "a", "a.b", "a.b.c"."""
    return accumulate(key.split("."), "{}.{}".format)


def _backbone_of(network: nn.Module) -> tuple[str, nn.Module | None]:
    """A network's backbone and its name inside it; none in a network that has none apart."""
    found = ((name, m) for name, m in network.named_modules() if isinstance(m, Backbone))
    return next(found, ("", None))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """The network's own tensors, the backbone's named alike in every detector."""
    name, _ = _backbone_of(network)
    inside = f"{name}." if name else _BACKBONE
    return {
        _BACKBONE + key.removeprefix(inside) if key.startswith(inside) else key: value
        for key, value in network.state_dict().items()
    }


def _differing(source: nn.Module | None, target: nn.Module | None) -> tuple[str, ...]:
    """What no tensor tells: stem, identity, eSE and norms of two VoVNets, where they differ."""
    if not (isinstance(source, VoVNet) and isinstance(target, VoVNet)):
        return ()
    pairs = [
        (field.name, getattr(source.spec, field.name), getattr(target.spec, field.name))
        for field in fields(source.spec)
    ]
    return tuple(
        f"their backbone's {name} was {theirs}, this one's is {own}"
        for name, theirs, own in pairs
        if isinstance(own, str | bool) and theirs != own
    )


def _grown(source: Detector, target: Detector) -> tuple[Detector, bool]:
    """`source` as wide as `target`, if that is a wider VoVDet, and whether it is."""
    narrow, same = source.network, source.name == target.name
    if same or not (isinstance(narrow, VoVDet) and isinstance(target.network, VoVDet)):
        return source, False
    grown = create_detector(target.name, source.names)
    wide = grown.network
    if not isinstance(wide, VoVDet) or not can_grow(narrow, wide):
        return source, False
    grow(narrow, wide)
    return grown, True


def _class_tensors(detector: Detector) -> set[str]:
    """Names of the tensors whose shape depends on the number of classes."""
    with torch.device("meta"):
        more = create_detector(detector.name, (*map(str, range(len(detector.names) + 1)),))
    own = _tensors(detector.network)
    return {k for k, v in _tensors(more.network).items() if v.shape != own[k].shape}


def freeze(network: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Take the parts (names of modules, such as "backbone" or "backbone.stem") out of training.

    "backbone" means it wherever the network keeps it. Returns them: their batch norms must be kept
    in eval mode. Raises `UnknownNameError`.
    """
    modules = dict(network.named_modules())
    backbone = _backbone_of(network)[1]
    if backbone is not None:
        modules |= {f"{_BACKBONE}{key}".rstrip("."): part for key, part in backbone.named_modules()}
    for part in parts:
        if not part or part not in modules:
            known = [name for name in modules if name and name.count(".") < 2]
            raise UnknownNameError("part to freeze", part, known)
    frozen = [modules[part] for part in parts]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
