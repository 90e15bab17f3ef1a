"""Beginning a run from trained weights, whatever their classes, with parts that stay frozen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from vovnet.errors import UnknownNameError, WeightsError
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.vovdet import VoVDet
from vovnet.train.grow import can_grow, grow


class Transfer(NamedTuple):
    """How many tensors were taken over, the parts of the network that begin anew, and whether it
    has grown: its first channels are the other network's."""

    kept: int
    anew: tuple[str, ...]
    grown: bool = False

    def __str__(self) -> str:
        kept = f"{self.kept} tensors kept{', and grown wider' if self.grown else ''}"
        if not self.anew:
            return f"{kept}, none begun anew"
        return f"{kept}; begun anew: {', '.join(self.anew)}"


def transfer_weights(source: Detector, target: Detector) -> Transfer:
    """Copy into `target` every tensor of `source` that has the same name and shape there.

    What tells classes apart is only copied if both know the same classes in the same order. The
    two may be different models: those on one backbone share its tensors, and a VoVDet grows out of
    a narrower one. Raises `WeightsError` if nothing fits.
    """
    source, grown = _grown(source, target)
    theirs = source.network.state_dict()
    own = target.network.state_dict()
    of_classes = _class_tensors(target) if source.names != target.names else set()
    fitting = {
        key: theirs[key]
        for key, value in own.items()
        if key not in of_classes and key in theirs and theirs[key].shape == value.shape
    }
    learned = [key for key in own if not key.endswith("num_batches_tracked")]
    if not any(key in fitting for key in learned):
        raise WeightsError(
            f"weights of {source.name}: nothing in them fits {target.name}; start from weights of "
            "the same model or backbone"
        )
    target.network.load_state_dict(own | fitting)
    missing = [key for key in learned if key not in fitting]
    anew = tuple(dict.fromkeys(key.rpartition(".")[0] for key in missing))
    return Transfer(len(fitting), anew, grown)


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
    own = detector.network.state_dict()
    return {k for k, v in more.network.state_dict().items() if v.shape != own[k].shape}


def freeze(network: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Take the parts (names of modules, such as "backbone" or "backbone.stem") out of training.

    Returns them: their batch norms must be kept in eval mode. Raises `UnknownNameError`.
    """
    modules = dict(network.named_modules())
    for part in parts:
        if not part or part not in modules:
            known = [name for name in modules if name and name.count(".") < 2]
            raise UnknownNameError("part to freeze", part, known)
    frozen = [modules[part] for part in parts]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
