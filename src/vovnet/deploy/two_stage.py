"""A two-stage network as one ONNX file, from the normalised image to its detections.

The layers are exported by torch, in parts; what lies between them (suppression, regions cut out of
the pyramid) is `glue`. Every step is that of `RCNN.decode` and `CenterMask.decode`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances, decode_offsets
from vovnet.deploy import glue
from vovnet.errors import MissingExtraError, VovnetError
from vovnet.files import write_atomically
from vovnet.losses.regions import REGION_VARIANCES
from vovnet.models import centermask, rcnn
from vovnet.models.centermask import CenterMask, MaskScore
from vovnet.models.detector import Detector
from vovnet.models.mask_head import POOLED, MaskHead, of_class
from vovnet.models.rcnn import RCNN
from vovnet.runtimes.convert import FlatNetwork, converting
from vovnet.runtimes.end_to_end import join_preparation

if TYPE_CHECKING:
    import onnx

_COMPETING = 1000  # (box, class) pairs, as `best_pairs` has it


@dataclass(frozen=True)
class Part:
    """What torch exports: a module, examples of its inputs, and the names of both ends.

    `regions` says whether the first axis of every input is that of however many regions there are.
    """

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    regions: bool = True


class _Candidates(nn.Module):
    """A 1×3×H×W image to the pyramid's pooled maps, then boxes and scores of every level; a box
    without area scores -1."""

    def __init__(self, network: RCNN, image_size: tuple[int, int], most: int) -> None:
        super().__init__()
        self.network, self.image_size, self.most = network, image_size, most

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(images)
        [levels] = self.network.candidates(outputs, self.image_size, self.most)
        flat: list[Tensor] = []
        for boxes, scores in levels:
            flat += boxes, torch.where(rcnn.has_area(boxes), scores, -1.0)
        return *outputs[:4], *flat


class _Classify(nn.Module):
    """Features of R regions and their boxes to R×C scores and R×C×4 boxes."""

    def __init__(self, network: RCNN, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.head, self.image_size = network.box_head, image_size

    def forward(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.head(features)
        centred = box_convert(regions, "xyxy", "cxcywh")[:, None]
        boxes = decode_offsets(offsets, centred, REGION_VARIANCES)
        clipped = clip_boxes_to_image(boxes.flatten(0, 1), self.image_size)
        return logits.softmax(1)[:, 1:], clipped.view_as(boxes)


class _Points(nn.Module):
    """A 1×3×H×W image to the maps that are pooled and the pairs that compete: K×4, K, K."""

    def __init__(self, network: CenterMask, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.image_size = network, image_size
        points, strides = anchor_points(*image_size, centermask.STRIDES)
        self.register_buffer("points", points)
        self.register_buffer("strides", strides)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(images)
        centre = outputs.centerness[0].sigmoid()[:, None]
        scores = (outputs.class_logits[0].sigmoid() * centre).sqrt()
        best, index = scores.flatten().topk(min(_COMPETING, scores.numel()))
        rows = index // scores.shape[1]
        boxes = decode_distances(outputs.distances[0][rows], self.points[rows], self.strides[rows])
        boxes = clip_boxes_to_image(boxes, self.image_size)
        return *outputs[:3], boxes, best, index % scores.shape[1]


class _Masks(nn.Module):
    """Features of K regions and their labels to masks."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (of_class(self.head(features), labels).sigmoid(),)


class _ScoredMasks(nn.Module):
    """The same, with scores of the boxes to those of the masks."""

    def __init__(self, head: MaskHead, score: MaskScore) -> None:
        super().__init__()
        self.head, self.score = head, score

    def forward(self, features: Tensor, labels: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        masks = of_class(self.head(features), labels).sigmoid()
        return masks, scores * of_class(self.score(features, masks), labels).clamp(0, 1)


def write_two_stage(detector: Detector, path: Path) -> None:
    """Write a two-stage detector as one ONNX file for batches of one.

    In: "images", normalised float32 1×3×H×W of the detector's input size; "conf" and "iou", float32
    of one element. Out, best first, K of each: "boxes" K×4 xyxy in input pixels, "scores", "labels"
    (int64), "masks" K×28×28 probabilities and "mask_scores" where the network has them, and K as
    "count", a scalar. Raises `VovnetError` for other networks, `MissingExtraError` without
    onnxscript.
    """
    try:
        import onnxscript  # noqa: F401  # torch imports it late, and says less
    except ImportError:
        raise MissingExtraError("onnxscript", "export") from None
    network = FlatNetwork(detector.network).network.cpu()
    size = detector.input_spec.size
    if isinstance(network, RCNN):
        parts, text = _rcnn(network, size)
    elif isinstance(network, CenterMask):
        parts, text = _centermask(network, size)
    else:
        raise VovnetError(f"{detector.name}: no two-stage network; export it with write_onnx")
    with converting("ONNX"), torch.no_grad():
        model = glue.join([(part.name, _export(part)) for part in parts], text, size)
    write_atomically(path, model.SerializeToString())


def write_end_to_end(detector: Detector, path: Path, facts: Mapping[str, Any]) -> None:
    """Write `write_two_stage`'s file with the preparation before it, from pixels to detections.

    It takes "images" 1×H×W×3 uint8 and gives what `vovnet.runtimes.end_to_end.join` gives, masks
    and mask scores after the count. Its metadata hold what `file_facts` tells, and `facts`.
    """
    with tempfile.TemporaryDirectory(prefix="vovnet-") as folder:
        middle = Path(folder) / "two_stage.onnx"
        write_two_stage(detector, middle)
        join_preparation(detector, middle, path, facts)


def _rcnn(network: RCNN, size: tuple[int, int]) -> tuple[list[Part], list[str]]:
    """The parts, and the glue before every part but the first and after the last."""
    rcnn.rcnn_anchors(size, network.pyramid.strides)  # kept from now on: none is made in tracing
    rule = rcnn.proposing_in_use(size)
    strides, width = network.pyramid.strides, network.width
    maps = tuple(f"map{i}" for i in range(4))
    levels = tuple(f"{kind}{i}" for i in range(len(strides)) for kind in ("candidates", "chances"))
    image = (torch.zeros(1, 3, *size),)
    first = _Candidates(network, size, rule.candidates)
    second = (torch.zeros(2, width, 7, 7), torch.tensor([[0.0, 0, 8, 8]]).repeat(2, 1))
    parts = [
        Part("first", first, image, ("images",), (*maps, *levels), regions=False),
        Part(
            *("second", _Classify(network, size), second),
            *(("cells", "regions"), ("region_scores", "region_boxes")),
        ),
    ]
    text = [
        glue.propose(len(strides), rule)
        + glue.canonical("regions")
        + glue.pool("regions", "cells", strides[:4], 7),
        glue.pairs("region_scores", "region_boxes", "proposed", _COMPETING),
    ]
    classes = network.box_head.classes.out_features - 1
    text[-1] += glue.suppress(classes, rcnn.MAX_DETECTIONS)
    if network.mask_head is not None:
        parts.append(_draw(network.mask_head, None, width))
        text[-1] += glue.drawn(glue.canonical("drawn"), strides[:4], POOLED)
        text.append(glue.outputs("masks"))
    else:
        text[-1] += glue.outputs()
    return parts, text


def _centermask(network: CenterMask, size: tuple[int, int]) -> tuple[list[Part], list[str]]:
    maps = tuple(f"map{i}" for i in range(3))
    image = (torch.zeros(1, 3, *size),)
    competing = ("pair_boxes", "pair_scores", "pair_labels")
    parts = [
        Part("first", _Points(network, size), image, ("images",), (*maps, *competing), False),
        _draw(network.mask_head, network.mask_score, network.width),
    ]
    classes = network.boxes.classes.out_channels
    text = [
        glue.suppress(classes, centermask.MAX_DETECTIONS)
        + glue.drawn(glue.adaptive("drawn", size), centermask.STRIDES[:3], POOLED),
        glue.outputs("masks", "mask_scores"),
    ]
    return parts, text


def _draw(head: MaskHead, score: MaskScore | None, width: int) -> Part:
    cells, labels = torch.zeros(2, width, POOLED, POOLED), torch.zeros(2, dtype=torch.int64)
    inputs = ("drawn_cells", "drawn_labels")
    if score is None:
        return Part("draw", _Masks(head), (cells, labels), inputs, ("drawn_masks",))
    return Part(
        *("draw", _ScoredMasks(head, score), (cells, labels, torch.zeros(2))),
        *((*inputs, "drawn_scores"), ("drawn_masks", "drawn_mask_scores")),
    )


def _export(part: Part) -> "onnx.ModelProto":
    """The part alone, its inputs' first axis open if they are regions."""
    many = torch.export.Dim("regions", min=1, max=4096)
    # Exported here, not by onnx's exporter, which on its own takes an axis for fixed if it must.
    exported = torch.export.export(
        part.module.eval(),
        part.examples,
        dynamic_shapes=tuple({0: many} for _ in part.examples) if part.regions else None,
    )
    program: Any = torch.onnx.export(
        exported,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        dynamo=True,
        verbose=False,
    )
    return program.model_proto
