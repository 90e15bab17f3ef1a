"""A detector: a network with the values that belong to it, and the two ways to decode one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances, decode_offsets
from vovnet.boxes.nms import best_pairs, likely_rows, suppress
from vovnet.detect.found import Found as FoundArrays
from vovnet.detect.options import Options
from vovnet.detect.run import AnyDetector
from vovnet.input_spec import InputSpec
from vovnet.losses.target import Target
from vovnet.losses.term import Term, means


class Found(NamedTuple):
    """One image's detections in input pixels: boxes K×4 xyxy, scores K, labels K; best first.

    `masks` K×S×S are probabilities, each filling its box, from a network that draws them;
    `mask_scores` K rank the masks where that is another order than the boxes'.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    mask_scores: Tensor | None = None

    def arrays(self) -> FoundArrays:
        """The same on the host, as NumPy arrays."""
        parts = (None if part is None else part.cpu().numpy() for part in self)
        return FoundArrays(*parts)  # pyrefly: ignore[bad-argument-type]


Criterion = Callable[[Any, Sequence[Target], tuple[int, int]], dict[str, Term]]
# (outputs, (height, width) of the input, what is wanted) -> one Found per image
Decoder = Callable[[Any, tuple[int, int], Options], list[Found]]


class Detector(AnyDetector, nn.Module):
    """Network, criterion, decoder, input and class names under one roof.

    `forward` is the network's: one dense tensor N×3×H×W in (see `InputSpec.normalize`), one named
    tuple of tensors out. `terms` and `decode` read that tuple, by the criterion and the decoder
    given; without them by the network's own methods, for a second stage has weights too.
    """

    runtime, precision = "eager", "fp32"

    def __init__(
        self,
        name: str,
        network: nn.Module,
        criterion: Criterion | None,
        decoder: Decoder | None,
        input_spec: InputSpec,
        names: tuple[str, ...],
        *,
        masks: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.criterion = criterion
        self.decoder = decoder
        self.input_spec = input_spec
        self.names = names
        self.masks = masks  # whether it draws masks, and must be shown some to learn
        self.metadata: dict[str, Any] = {}  # of the weights file, when it came from one

    def forward(self, images: Tensor) -> Any:
        """Images N×3×H×W, normalised, to the network's named tuple of dense predictions."""
        return self.network(images)

    def terms(
        self, outputs: Any, targets: Sequence[Target], image_size: tuple[int, int]
    ) -> dict[str, Term]:
        """Named loss terms, not divided yet: a batch may be larger than these images."""
        criterion: Any = self.criterion or self.network.terms
        return criterion(outputs, targets, image_size)

    def loss(
        self, outputs: Any, targets: Sequence[Target], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Named scalar loss terms of a batch; their sum is what training minimises."""
        return means(self.terms(outputs, targets, image_size))

    def decode(
        self, outputs: Any, image_size: tuple[int, int], how: Options | None = None
    ) -> list[Found]:
        """Detections of every image, in input pixels."""
        decoder: Any = self.decoder or self.network.decode
        return decoder(outputs, image_size, how or Options())

    def around(self, network: nn.Module) -> "Detector":
        """The same detector around another network of the same build."""
        return Detector(
            self.name,
            network,
            self.criterion,
            self.decoder,
            self.input_spec,
            self.names,
            masks=self.masks,
        )

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 N×H×W×3 to float32 N×3×H×W, channels-last in memory, normalised."""
        mean = torch.tensor(self.input_spec.mean, device=pixels.device)
        std = torch.tensor(self.input_spec.std, device=pixels.device)
        return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def find(self, pixels: np.ndarray, how: Options) -> list[FoundArrays]:
        """What is found in inputs N×H×W×3 uint8, in their pixels.

        Raises ValueError in training mode, whose batch statistics would be changed and would give
        other results.
        """
        if self.training:
            raise ValueError("call .eval() before detect()")
        device = next(self.network.parameters()).device
        outputs = self.network(self.normalize(torch.from_numpy(pixels).to(device)))
        return [found.arrays() for found in self.decode(outputs, self.input_spec.size, how)]


@dataclass(frozen=True)
class PointDecoder:
    """Decodes `VoVDetOutput`: sigmoid scores, distances from points, per-class NMS."""

    strides: tuple[int, ...]

    def __call__(self, outputs: Any, image_size: tuple[int, int], how: Options) -> list[Found]:
        """One `Found` per image; `image_size` is the (height, width) of the input."""
        device = outputs.class_logits.device
        points, strides = (x.to(device) for x in anchor_points(*image_size, self.strides))
        found = []
        for logits, distances in zip(outputs.class_logits, outputs.distances, strict=True):
            likely = likely_rows(logits, how.conf)
            pairs = best_pairs(likely, logits[likely].float().sigmoid(), how.conf)
            rows = pairs.rows
            boxes = decode_distances(distances[rows].float(), points[rows], strides[rows])
            found.append(Found(*suppress(boxes, pairs, how)))
        return found

    def dense(self, outputs: Any, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """All boxes N×A×4 (xyxy in input pixels) and their scores N×A×C, nothing left out."""
        points, strides = anchor_points(*image_size, self.strides)
        boxes = decode_distances(outputs.distances, points, strides)
        return boxes, outputs.class_logits.sigmoid()


@dataclass(frozen=True)
class PriorDecoder:
    """Decodes `PriorOutput`: softmax without the background, offsets from priors, per-class NMS."""

    priors: Tensor
    variances: tuple[float, float] = (0.1, 0.2)

    def __call__(self, outputs: Any, image_size: tuple[int, int], how: Options) -> list[Found]:
        """One `Found` per image; `image_size` is the priors' own."""
        priors = self.priors.to(outputs.offsets.device)
        found = []
        for logits, offsets in zip(outputs.class_logits, outputs.offsets, strict=True):
            likely = likely_rows(logits[:, 1:], how.conf, background=logits[:, 0])
            pairs = best_pairs(likely, logits[likely].float().softmax(1)[:, 1:], how.conf)
            rows = pairs.rows
            boxes = decode_offsets(offsets[rows].float(), priors[rows], self.variances)
            found.append(Found(*suppress(boxes, pairs, how)))
        return found

    def dense(self, outputs: Any, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As `PointDecoder.dense`."""
        boxes = decode_offsets(outputs.offsets, self.priors, self.variances)
        return boxes, outputs.class_logits.softmax(2)[..., 1:]


@dataclass(frozen=True)
class RefineDecoder:
    """Decodes `RefineDetOutput` in two steps; anchors that the first step is sure are background
    (objectness below `min_objectness`) give no detections."""

    anchors: Tensor
    variances: tuple[float, float] = (0.1, 0.2)
    min_objectness: float = 0.01

    def __call__(self, outputs: Any, image_size: tuple[int, int], how: Options) -> list[Found]:
        """One `Found` per image; `image_size` is the anchors' own."""
        anchors = self.anchors.to(outputs.offsets.device)
        found = []
        for arm_logits, arm_offsets, logits, offsets in zip(*outputs, strict=True):
            likely = likely_rows(logits[:, 1:], how.conf, background=logits[:, 0])
            objectness = arm_logits[likely].float().softmax(1)[:, 1]
            likely = likely[objectness >= self.min_objectness]
            pairs = best_pairs(likely, logits[likely].float().softmax(1)[:, 1:], how.conf)
            rows = pairs.rows
            refined = decode_offsets(arm_offsets[rows].float(), anchors[rows], self.variances)
            refined = box_convert(refined, "xyxy", "cxcywh")
            boxes = decode_offsets(offsets[rows].float(), refined, self.variances)
            found.append(Found(*suppress(boxes, pairs, how, most=500)))
        return found

    def dense(self, outputs: Any, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As `PointDecoder.dense`; what the first step is sure is background scores nothing."""
        refined = decode_offsets(outputs.arm_offsets, self.anchors, self.variances)
        refined = torch.cat(  # box_convert has no place in exported graphs
            [(refined[..., :2] + refined[..., 2:]) / 2, refined[..., 2:] - refined[..., :2]], -1
        )
        boxes = decode_offsets(outputs.offsets, refined, self.variances)
        objectness = outputs.arm_logits.softmax(2)[..., 1:]
        likely = (objectness >= self.min_objectness).to(boxes.dtype)
        return boxes, outputs.class_logits.softmax(2)[..., 1:] * likely


class WholePass(nn.Module):
    """A two-stage network with its second stage at its dearest, for counting.

    What the second stage costs depends on what the first finds: it is counted with as many regions
    and masks as there can be.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        second_stage: Any = self.network.second_stage
        return self.network(images), second_stage(len(images), images)
