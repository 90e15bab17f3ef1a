"""What a name given to `vovnet bench` means: a network of ours, timm's or torchvision's, a file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from vovnet.detect.description import described
from vovnet.detect.foreign import ForeignDetector
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.lab.count import Counts, count
from vovnet.lab.factory import is_factory, make_network
from vovnet.load import load_detector as load_any
from vovnet.models import create_model, default_num_classes, list_models
from vovnet.models.centermask import CenterMask
from vovnet.models.cifar import CifarNet
from vovnet.models.detector import Detector, WholePass
from vovnet.models.rcnn import RCNN
from vovnet.models.weights import load_detector
from vovnet.runtimes.onnx_file import fill_shape
from vovnet.shipped import SHIPPED, is_model_file

_TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class Target:
    """A network in eval mode that takes N×3×imgsz×imgsz, or the ONNX file that holds one.

    `detector` is there for detectors of ours, `foreign` for an ONNX file with a description beside
    it; `map_50` and `map_50_95` if its weights know them.
    """

    name: str
    imgsz: int
    num_classes: int | None = None
    network: nn.Module | None = None
    onnx: Path | None = None
    detector: Detector | None = None
    foreign: ForeignDetector | None = None
    map_50: float | None = None
    map_50_95: float | None = None

    @property
    def two_stages(self) -> bool:
        """Whether the network alone is a first stage: how much the second does, images decide."""
        return isinstance(self.network, RCNN | CenterMask)

    @property
    def countable(self) -> nn.Module | None:
        """The network with all that one pass can cost; None for an ONNX file."""
        if isinstance(self.network, RCNN | CenterMask):
            return WholePass(self.network)
        return self.network

    def counts(self, batch: int, bytes_per_element: int, *, timed: bool = False) -> Counts | None:
        """Its cost on paper, or of what is `timed` as the network alone; None for an ONNX file and
        for what shapes alone do not decide."""
        network = self.network if timed else self.countable
        if network is None:
            return None
        size = (self.imgsz, self.imgsz)
        try:
            return count(network, size, batch=batch, bytes_per_element=bytes_per_element)
        except Exception:  # a forward that reads its own numbers, as torchvision's detectors do
            return None


def is_weights(name: str) -> bool:
    """Whether a name means trained weights: shipped ones, a .safetensors file or a run's folder,
    which a model's own name never does."""
    if name in SHIPPED or name.endswith(".safetensors"):
        return True
    return os.path.isdir(name) and ":" not in name and name not in list_models()


def open_target(
    name: str,
    imgsz: int | None = None,
    num_classes: int | None = None,
    *,
    stem: Literal["pooled", "strided"] | None = None,
) -> Target:
    """The network that `name` stands for, freshly initialised unless it is a weights file.

    A model or weights of ours, a .safetensors, .onnx or IR's .xml file, `timm:NAME`,
    `torchvision:NAME` or `torchvision:NAME@CHECKPOINT`, or a function `FILE.py:NAME` that makes
    one; `stem` is for VoVNets. Raises `VovnetError` for what is not there, or cannot have that
    size, number of classes or stem.
    """
    if imgsz is not None and imgsz < 1:
        raise VovnetError(f"--imgsz {imgsz}: must be at least 1")
    ready_made = is_model_file(name) or is_weights(name) or is_factory(name)
    if ready_made and (num_classes, stem) != (None, None):
        raise VovnetError(f"{name}: is ready made; leave out --num-classes and --stem")
    if is_model_file(name):
        return _onnx(name, imgsz)
    if is_factory(name):
        network, side = make_network(name, imgsz)
        return Target(name, side, network=network)
    if is_weights(name):
        return _weights(name, imgsz)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name.startswith(_TORCHVISION):
            return _torchvision(name.removeprefix(_TORCHVISION), imgsz, num_classes)
        model = create_model(name, num_classes, stem=stem).eval()
    classes = default_num_classes(name) if num_classes is None else num_classes
    if not isinstance(model, Detector):
        return Target(name, imgsz or _own_side(model), classes, model)
    if imgsz is not None:
        model.input_spec = model.input_spec.with_side(imgsz, name)
    return Target(name, model.input_spec.size[0], classes, model.network, detector=model)


def _own_side(model: nn.Module) -> int:
    """32 pixels for CIFAR's networks, what timm says for timm's, 224 for others."""
    if isinstance(model, CifarNet):
        return 32
    timm: Any = getattr(model, "pretrained_cfg", None) or {}
    return timm.get("input_size", (3, 224, 224))[-1]


def _weights(name: str, imgsz: int | None) -> Target:
    """With batch norms folded, as `vovnet predict` runs them."""
    detector = load_detector(name, imgsz=imgsz, fuse=True)
    metrics = detector.metadata.get("metrics", {})
    background = default_num_classes(detector.name) - 20
    return Target(
        name,
        detector.input_spec.size[0],
        len(detector.names) + background,
        detector.network,
        detector=detector,
        map_50=metrics.get("map_50"),
        map_50_95=metrics.get("map_50_95"),
    )


def _onnx(name: str, imgsz: int | None) -> Target:
    size = None if imgsz is None else (imgsz, imgsz)
    _, _, height, width = fill_shape(Path(name), None, size)
    if height != width:
        raise VovnetError(f"{name}: takes images of {height}×{width}; bench takes square ones only")
    if not described(Path(name)):
        return Target(name, height, onnx=Path(name))
    foreign = load_any(name, imgsz=imgsz)
    return Target(name, height, len(foreign.names), onnx=Path(name), foreign=foreign)


def _torchvision(name: str, imgsz: int | None, num_classes: int | None) -> Target:
    from torchvision import models

    whole, (name, _, checkpoint) = _TORCHVISION + name, name.partition("@")
    if name not in models.list_models():
        raise UnknownNameError("torchvision model", name, models.list_models())
    detection = name in models.list_models(module=models.detection)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if detection:
        options["weights_backbone"] = None
    model = models.get_model(name, weights=None, **options).eval()
    if checkpoint:
        _load_checkpoint(model, Path(checkpoint), whole)
    if detection:
        classes = 91 if num_classes is None else num_classes
        return Target(whole, imgsz or 320, classes, OneTensorIn(model).eval())
    classes = 1000 if num_classes is None else num_classes
    return Target(whole, imgsz or 224, classes, model)


def _load_checkpoint(model: nn.Module, path: Path, name: str) -> None:
    """Weights as torchvision's training scripts save them, read without running code."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        saved = saved.get("model", saved) if isinstance(saved, dict) else saved
        # On the meta device, as for counting, there is nothing to copy into.
        model.load_state_dict(saved, assign=next(model.parameters()).is_meta)
    except OSError as error:
        raise VovnetError(f"{name}: {path} cannot be read ({error.strerror})") from None
    except Exception as error:  # pickle, zip, missing keys: each has its own kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or ["no reason given"])[:2][-1]  # torch's first line names the class only
        raise VovnetError(
            f"{name}: {path} does not fit ({reason}); "
            "give a state_dict of that model, and --num-classes if it has others"
        ) from None


class OneTensorIn(nn.Module):
    """A torchvision detection model, which takes a list of images, for a batch N×3×H×W."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """The dictionaries of boxes, labels and scores that the model returns."""
        return self.model(list(images))


def random_images(batch: int, side: int, device: torch.device, seed: int = 0) -> Tensor:
    """Normally distributed N×3×side×side, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, side, side, generator=generator).to(device)


@torch.inference_mode()
def reference_outputs(network: nn.Module, images: Tensor) -> tuple[list[Tensor], TreeSpec]:
    """What torch eager gives in float32, without TF32: the flat tensors and their structure."""
    network = network.to(images.device)
    with torch.backends.cudnn.flags(allow_tf32=False):
        flat, structure = tree_flatten(network(images))
    return [tensor.float() for tensor in flat], structure
