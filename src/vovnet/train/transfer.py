"""Beginning a run from trained weights, whatever their classes, with parts that stay frozen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from vovnet.errors import UnknownNameError, WeightsError
from vovnet.models import create_detector
from vovnet.models.detector import Detector


class Transfer(NamedTuple):
    """How many tensors were taken over, and the parts of the network that begin anew."""

    kept: int
    anew: tuple[str, ...]

    def __str__(self) -> str:
        if not self.anew:
            return f"{self.kept} tensors kept, none begun anew"
        return f"{self.kept} tensors kept; begun anew: {', '.join(self.anew)}"


def transfer_weights(source: Detector, target: Detector) -> Transfer:
    """Copy into `target` every tensor of `source` that has the same name and shape there.

    What tells classes apart is only copied if both know the same classes in the same order. The
    two may be different models: those on one backbone share its tensors. Raises `WeightsError` if
    nothing fits.
    """
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
    return Transfer(len(fitting), tuple(dict.fromkeys(k.rpartition(".")[0] for k in missing)))


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
