"""A detector: a network with the values that belong to it, and the two ways to decode one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_convert

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances, decode_offsets
from vovnet.boxes.nms import best_pairs, likely_rows, suppress
from vovnet.detections import Detections
from vovnet.losses.target import Target
from vovnet.losses.term import Term, means
from vovnet.models.input_spec import InputSpec, Placement
from vovnet.models.mask_head import paste_masks


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


Criterion = Callable[[Any, Sequence[Target], tuple[int, int]], dict[str, Term]]
# (outputs, (height, width) of the input, score threshold, NMS overlap) -> one Found per image
Decoder = Callable[[Any, tuple[int, int], float, float], list[Found]]


class Detector(nn.Module):
    """Network, criterion, decoder, input and class names under one roof.

    `forward` is the network's: one dense tensor N×3×H×W in (see `InputSpec.normalize`), one named
    tuple of tensors out. `terms` and `decode` read that tuple, by the criterion and the decoder
    given; without them by the network's own methods, for a second stage has weights too.
    """

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
        self, outputs: Any, image_size: tuple[int, int], conf: float = 0.25, iou: float = 0.6
    ) -> list[Found]:
        """Detections of every image, in input pixels, scores above `conf`, after NMS at `iou`."""
        decoder: Any = self.decoder or self.network.decode
        return decoder(outputs, image_size, conf, iou)

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

    @torch.inference_mode()
    def detect(
        self,
        images: Sequence[Image.Image],
        conf: float = 0.25,
        iou: float = 0.6,
        whole_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Detections]:
        """Detections of RGB images of any sizes, in pixels of each, run as one batch.

        Images are seen, and boxes given, as EXIF says that they are displayed. `whole_sizes` gives
        the (height, width), as displayed, of images that were decoded smaller than they are; boxes
        are in pixels of the whole. Raises ValueError in training mode, whose batch
        statistics would be changed and would give other results.
        """
        if self.training:
            raise ValueError("call .eval() before detect()")
        if not images:
            return []
        sizes = whole_sizes or [None] * len(images)
        prepared = [
            self.input_spec.prepare(image, size) for image, size in zip(images, sizes, strict=True)
        ]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in prepared]))
        device = next(self.network.parameters()).device
        outputs = self.network(self.input_spec.normalize(pixels.to(device)))
        found = self.decode(outputs, self.input_spec.size, conf, iou)
        return [
            _in_image(one, place, self.names)
            for one, (_, place) in zip(found, prepared, strict=True)
        ]


def _in_image(found: Found, place: Placement, names: tuple[str, ...]) -> Detections:
    """What was found in an input, in pixels of its image; nothing that lies wholly outside it."""
    size = (place.height, place.width)
    boxes = place.to_image(found.boxes.cpu())
    there = (boxes[:, 2:] > boxes[:, :2]).all(1)
    masks = None
    if found.masks is not None:
        # Not the clipped boxes: a mask fills the whole of its box.
        whole = place.to_image(found.boxes.cpu()[there], clip=False)
        masks = paste_masks(found.masks.cpu()[there], whole, size).numpy()
    scores = found.mask_scores
    return Detections(
        boxes[there].numpy(),
        found.scores.cpu()[there].numpy(),
        found.labels.cpu()[there].numpy(),
        names=names,
        masks=masks,
        mask_scores=None if scores is None else scores.cpu()[there].numpy(),
        image_size=size,
    )


@dataclass(frozen=True)
class PointDecoder:
    """Decodes `VoVDetOutput`: sigmoid scores, distances from points, per-class NMS."""

    strides: tuple[int, ...]

    def __call__(
        self, outputs: Any, image_size: tuple[int, int], conf: float, iou: float
    ) -> list[Found]:
        """One `Found` per image; `image_size` is the (height, width) of the input."""
        device = outputs.class_logits.device
        points, strides = (x.to(device) for x in anchor_points(*image_size, self.strides))
        found = []
        for logits, distances in zip(outputs.class_logits, outputs.distances, strict=True):
            likely = likely_rows(logits, conf)
            pairs = best_pairs(likely, logits[likely].float().sigmoid(), conf)
            rows = pairs.rows
            boxes = decode_distances(distances[rows].float(), points[rows], strides[rows])
            found.append(Found(*suppress(boxes, pairs, iou)))
        return found


@dataclass(frozen=True)
class PriorDecoder:
    """Decodes `PriorOutput`: softmax without the background, offsets from priors, per-class NMS."""

    priors: Tensor
    variances: tuple[float, float] = (0.1, 0.2)

    def __call__(
        self, outputs: Any, image_size: tuple[int, int], conf: float, iou: float
    ) -> list[Found]:
        """One `Found` per image; `image_size` is the priors' own."""
        priors = self.priors.to(outputs.offsets.device)
        found = []
        for logits, offsets in zip(outputs.class_logits, outputs.offsets, strict=True):
            likely = likely_rows(logits[:, 1:], conf, background=logits[:, 0])
            pairs = best_pairs(likely, logits[likely].float().softmax(1)[:, 1:], conf)
            rows = pairs.rows
            boxes = decode_offsets(offsets[rows].float(), priors[rows], self.variances)
            found.append(Found(*suppress(boxes, pairs, iou)))
        return found


@dataclass(frozen=True)
class RefineDecoder:
    """Decodes `RefineDetOutput` in two steps; anchors that the first step is sure are background
    (objectness below `min_objectness`) give no detections."""

    anchors: Tensor
    variances: tuple[float, float] = (0.1, 0.2)
    min_objectness: float = 0.01

    def __call__(
        self, outputs: Any, image_size: tuple[int, int], conf: float, iou: float
    ) -> list[Found]:
        """One `Found` per image; `image_size` is the anchors' own."""
        anchors = self.anchors.to(outputs.offsets.device)
        found = []
        for arm_logits, arm_offsets, logits, offsets in zip(*outputs, strict=True):
            likely = likely_rows(logits[:, 1:], conf, background=logits[:, 0])
            objectness = arm_logits[likely].float().softmax(1)[:, 1]
            likely = likely[objectness >= self.min_objectness]
            pairs = best_pairs(likely, logits[likely].float().softmax(1)[:, 1:], conf)
            rows = pairs.rows
            refined = decode_offsets(arm_offsets[rows].float(), anchors[rows], self.variances)
            refined = box_convert(refined, "xyxy", "cxcywh")
            boxes = decode_offsets(offsets[rows].float(), refined, self.variances)
            found.append(Found(*suppress(boxes, pairs, iou, most=500)))
        return found


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
