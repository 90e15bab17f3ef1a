"""Faster and Mask R-CNN with FPN, normalised by groups to be trained from scratch (table 5).

Proposals by anchors on five levels, then a box head of four 3×3 and one linear layer on 7×7 cells
of each region, and a mask head on 14×14 (arXiv 1506.01497, 1612.03144, 1703.06870; heads, group
norm and constants as in the VoVNet paper's released configuration, but for what docs/structure.md
tells). FPNLite has 128 channels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from vovnet.boxes.anchors import pyramid_anchors
from vovnet.boxes.coding import decode_offsets
from vovnet.boxes.nms import best_pairs, suppress
from vovnet.detect.options import Options
from vovnet.losses.masks import mask_loss, mask_targets, masked_objects
from vovnet.losses.regions import (
    ANCHOR_VARIANCES,
    REGION_VARIANCES,
    match_regions,
    proposal_loss,
    region_loss,
    sample_regions,
)
from vovnet.losses.target import Target
from vovnet.losses.term import Term
from vovnet.models.backbone import Backbone
from vovnet.models.detector import Found
from vovnet.models.fpn import Pyramid, canonical_levels, group_norm, pool_regions
from vovnet.models.mask_head import MASK, POOLED, MaskHead, of_class

_RATIOS = (0.5, 1.0, 2.0)
_ANCHORS_SAMPLED = 256  # an image
MAX_DETECTIONS = 100
_BOX_CELLS = 7


class RCNNOutput(NamedTuple):
    """The first stage: the pyramid's maps N×W×h×w at strides 4 to 64, and what stands at A anchors:
    `objectness` N×A logits and `offsets` N×A×4."""

    p2: Tensor
    p3: Tensor
    p4: Tensor
    p5: Tensor
    p6: Tensor
    objectness: Tensor
    offsets: Tensor


class Proposing(NamedTuple):
    """How an image's regions are chosen: the best `candidates` of each level, of these none below
    `min_objectness`, and after suppression at `iou` the best `most`."""

    candidates: int
    most: int
    iou: float
    min_objectness: float = 0.0


_IN_TRAINING = Proposing(2000, 2000, 0.7)
_AS_PUBLISHED = Proposing(1000, 1000, 0.7)


def proposing_in_use(image_size: tuple[int, int]) -> Proposing:
    """What is worth a second stage in use: as published, but for what the first is sure of.

    Inputs of 400 pixels and less hold fewer objects: fewer regions of them, likelier to be objects
    and overlapping less. `benchmarks/regions.py` measures what that gives and what it costs.
    """
    side = max(image_size)
    if side > 400:
        return _AS_PUBLISHED._replace(min_objectness=0.01)
    return Proposing(1000, round(0.8 * side), 0.5, 0.3)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def rcnn_anchors(image_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Anchors of every level, xyxy: squares of 8 strides for inputs of 800 pixels and more, fewer
    for smaller inputs, where objects are smaller too, but at least 4; and ratios 1:2, 2:1."""
    strides_wide = min(8.0, max(4.0, max(image_size) / 100))
    sizes = [stride * strides_wide for stride in strides]
    return pyramid_anchors(*image_size, strides, sizes, _RATIOS)


class BoxHead(nn.Module):
    """R×W×7×7 features to R×(1+C) class logits and R×C×4 offsets."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 256) -> None:
        super().__init__()
        shape = (in_channels, _BOX_CELLS, _BOX_CELLS)
        self.body = FastRCNNConvFCHead(shape, [width] * 4, [1024], norm_layer=group_norm)
        self.classes = nn.Linear(1024, num_classes)
        self.offsets = nn.Linear(1024, 4 * (num_classes - 1))
        for layer, deviation in ((self.classes, 0.01), (self.offsets, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(features)
        return self.classes(x).float(), self.offsets(x).float().unflatten(1, (-1, 4))


class RCNN(nn.Module):
    """N×3×H×W images, sides multiples of 32, to an `RCNNOutput`, alike in train and eval.

    The backbone gives maps at strides 4 to 32. The second stage runs on the regions that the first
    proposes, so it lies in `terms` and `decode`. `num_classes` counts the background; `regions` is
    how many of an image train the second stage.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int,
        masks: bool,
        regions: int = 512,
    ) -> None:
        super().__init__()
        self.pyramid = Pyramid(backbone, width, "pool")
        self.proposer = RPNHead(width, len(_RATIOS))
        self.box_head = BoxHead(width, num_classes)
        self.mask_head = MaskHead(width, 256, 4, num_classes - 1) if masks else None
        self.width = width
        self.regions = regions

    def forward(self, images: Tensor) -> RCNNOutput:
        maps = self.pyramid(images)
        objectness, offsets = self.proposer(maps)
        flat = [x.permute(0, 2, 3, 1).flatten(1) for x in objectness]
        boxes = [x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in offsets]
        p2, p3, p4, p5, p6 = maps
        return RCNNOutput(p2, p3, p4, p5, p6, torch.cat(flat, 1), torch.cat(boxes, 1))

    def terms(
        self, outputs: RCNNOutput, targets: Sequence[Target], image_size: tuple[int, int]
    ) -> dict[str, Term]:
        """Terms "proposal_class", "proposal_box", "class", "box" and, if it draws them, "mask"."""
        objectness, offsets = outputs.objectness.float(), outputs.offsets.float()
        anchors = self._anchors(outputs, image_size)
        first = proposal_loss(objectness, offsets, torch.cat(anchors), targets, _ANCHORS_SAMPLED)
        rule = _IN_TRAINING if self.training else _AS_PUBLISHED
        proposals = self._propose(outputs, image_size, rule)
        regions = [
            sample_regions(match_regions(p, t), self.regions, t.seed)
            for p, t in zip(proposals, targets, strict=True)
        ]
        logits, deltas = self.box_head(self._pool(outputs, [r.boxes for r in regions], _BOX_CELLS))
        second = region_loss(logits, deltas, regions, targets)
        names = ("proposal_class", "proposal_box", "class", "box")
        terms = dict(zip(names, (*first, *second), strict=True))
        if self.mask_head is not None:
            drawn = [masked_objects(r, t) for r, t in zip(regions, targets, strict=True)]
            pairs = list(zip(drawn, targets, strict=True))
            masks = self.mask_head(self._pool(outputs, [r.boxes for r in drawn], POOLED)).float()
            labels = torch.cat([t.labels[r.matched] for r, t in pairs])
            seen = [mask_targets(t.masks, r, MASK) for r, t in pairs if t.masks is not None]
            count = masks.new_full((), len(labels))
            terms["mask"] = mask_loss(of_class(masks, labels), torch.cat(seen), count)
        return terms

    def decode(self, outputs: RCNNOutput, image_size: tuple[int, int], how: Options) -> list[Found]:
        """Detections of every image, in input pixels; masks as probabilities on 28×28 cells."""
        proposals = self._propose(outputs, image_size, proposing_in_use(image_size))
        logits, deltas = self.box_head(self._pool(outputs, proposals, _BOX_CELLS))
        counts = [len(boxes) for boxes in proposals]
        found = []
        for boxes, scores, offsets in zip(
            proposals, logits.softmax(1)[:, 1:].split(counts), deltas.split(counts), strict=True
        ):
            every = torch.arange(len(boxes), device=boxes.device)
            pairs = best_pairs(every, scores, how.conf)
            centred = box_convert(boxes[pairs.rows], "xyxy", "cxcywh")
            moved = decode_offsets(offsets[pairs.rows, pairs.labels], centred, REGION_VARIANCES)
            moved = clip_boxes_to_image(moved, image_size)
            found.append(Found(*suppress(moved, pairs, how, MAX_DETECTIONS)))
        return found if self.mask_head is None else self._draw(outputs, found, self.mask_head)

    def second_stage(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        """The heads on the most that `count` images can ask of them, without numbers: for counting
        on the meta device. RoIAlign itself has no multiply–accumulates."""
        most = proposing_in_use((like.shape[2], like.shape[3])).most
        regions = like.new_empty(count * most, self.width, _BOX_CELLS, _BOX_CELLS)
        outputs = self.box_head(regions)
        if self.mask_head is None:
            return outputs
        drawn = like.new_empty(count * MAX_DETECTIONS, self.width, POOLED, POOLED)
        return *outputs, self.mask_head(drawn)

    def _draw(self, outputs: RCNNOutput, found: list[Found], head: MaskHead) -> list[Found]:
        features = self._pool(outputs, [f.boxes for f in found], POOLED)
        labels = torch.cat([f.labels for f in found])
        masks = of_class(head(features).float(), labels).sigmoid()
        parts = masks.split([len(f.labels) for f in found])
        return [f._replace(masks=part) for f, part in zip(found, parts, strict=True)]

    def _pool(self, outputs: RCNNOutput, boxes: Sequence[Tensor], cells: int) -> Tensor:
        """Region features from the four levels that the backbone reaches."""
        levels = [canonical_levels(b, 4) for b in boxes]
        return pool_regions(outputs[:4], self.pyramid.strides[:4], boxes, levels, cells)

    def _anchors(self, outputs: RCNNOutput, image_size: tuple[int, int]) -> list[Tensor]:
        anchors = rcnn_anchors(image_size, self.pyramid.strides)
        return [level.to(outputs.offsets.device) for level in anchors]

    def candidates(
        self, outputs: RCNNOutput, image_size: tuple[int, int], most: int
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """For every image and level, its `most` likeliest boxes inside the image and their scores,
        best first."""
        anchors = self._anchors(outputs, image_size)
        counts = [len(level) for level in anchors]
        images = []
        for objectness, offsets in zip(
            outputs.objectness.float(), outputs.offsets.float(), strict=True
        ):
            levels = []
            for anchor, logits, deltas in zip(
                anchors, objectness.split(counts), offsets.split(counts), strict=True
            ):
                best, index = logits.topk(min(most, len(logits)))
                centred = box_convert(anchor[index], "xyxy", "cxcywh")
                boxes = decode_offsets(deltas[index], centred, ANCHOR_VARIANCES)
                levels.append((clip_boxes_to_image(boxes, image_size), best.sigmoid()))
            images.append(levels)
        return images

    @torch.no_grad()
    def _propose(
        self, outputs: RCNNOutput, image_size: tuple[int, int], rule: Proposing
    ) -> list[Tensor]:
        """Regions of every image: P×4 xyxy inside it, best first, after suppression by level."""
        proposals = []
        for levels in self.candidates(outputs, image_size, rule.candidates):
            box, score = (torch.cat(column) for column in zip(*levels, strict=True))
            level = torch.cat([torch.full_like(s, n) for n, (_, s) in enumerate(levels)])
            keep = has_area(box) & (score >= rule.min_objectness)
            box, score, level = box[keep], score[keep], level[keep]
            proposals.append(box[batched_nms(box, score, level, rule.iou)[: rule.most]])
        return proposals


def has_area(boxes: Tensor) -> Tensor:
    """Which boxes are a region that features can be cut from."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(-1) > 1e-3
