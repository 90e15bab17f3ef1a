"""CenterMask (arXiv 1911.06667): FCOS boxes, then masks with spatial attention and mask scoring.

Layers and constants as in the released centermask2 configurations, but for what docs/structure.md
tells; every normalisation is by groups, so that it trains from scratch. CenterMask-Lite halves the
widths and shortens the towers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from vovnet.boxes.anchors import anchor_points
from vovnet.boxes.coding import decode_distances
from vovnet.boxes.nms import best_pairs, likely_rows, suppress
from vovnet.detect.options import Options
from vovnet.losses.fcos import FCOSLoss
from vovnet.losses.masks import mask_loss, mask_overlaps, mask_targets, masked_objects
from vovnet.losses.regions import Regions, match_regions
from vovnet.losses.target import Target
from vovnet.losses.term import Term
from vovnet.models.backbone import Backbone
from vovnet.models.detector import Found
from vovnet.models.fpn import Pyramid, pool_regions, sqrt_area
from vovnet.models.layers import ConvNorm
from vovnet.models.mask_head import MASK, POOLED, MaskHead, of_class

STRIDES = (8, 16, 32, 64, 128)
_RANGES = ((0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, torch.inf))
_TRAINING, _TRAIN_REGIONS = Options(conf=0.05, iou=0.6), 100
MAX_DETECTIONS = 50


@dataclass(frozen=True)
class CenterMaskSpec:
    """Channels of pyramid and towers, convolutions in a tower, channels and depth of the mask."""

    width: int = 256
    tower: int = 4
    mask_width: int = 256
    mask_convs: int = 4


SPECS = {
    "centermask": CenterMaskSpec(),
    "centermask_lite": CenterMaskSpec(width=128, tower=2, mask_width=128, mask_convs=2),
}


class CenterMaskOutput(NamedTuple):
    """Maps N×W×h×w at strides 8 to 128, and predictions at A points: `class_logits` N×A×C,
    `distances` N×A×4 to the sides in strides, `centerness` N×A logits."""

    p3: Tensor
    p4: Tensor
    p5: Tensor
    p6: Tensor
    p7: Tensor
    class_logits: Tensor
    distances: Tensor
    centerness: Tensor


def adaptive_levels(boxes: Tensor, image_size: tuple[int, int], count: int = 3) -> Tensor:
    """The level, 0 (stride 8) to `count` - 1, that a box is cut from, by its share of the image.

    ⌈k_max − log₂(A_image / A_box)⌉ (equation 1), with k_max the last pooled level, as the code has.
    """
    share = sqrt_area(boxes).square().clamp(min=1e-6) / (image_size[0] * image_size[1])
    return torch.ceil(count - 1 + torch.log2(share)).clamp(0, count - 1).long()


class FCOSHead(nn.Module):
    """Towers shared by all levels, and 3×3 predictors of class, distances and centre-ness."""

    def __init__(self, width: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.class_tower = nn.Sequential(
            *(ConvNorm(width, width, norm="group") for _ in range(depth))
        )
        self.box_tower = nn.Sequential(
            *(ConvNorm(width, width, norm="group") for _ in range(depth))
        )
        self.classes = nn.Conv2d(width, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(width, 4, 3, padding=1)
        self.centerness = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        # A score of 0.01 everywhere at first, as RetinaNet.
        for layer, start in ((self.classes, -4.6), (self.distances, 0.0), (self.centerness, 0.0)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, start)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for x, scale in zip(maps, self.scales, strict=True):
            kind, place = self.class_tower(x), self.box_tower(x)
            # exp, cut where a box would be larger than any image.
            sides = (self.distances(place) * scale).clamp(max=8.0).exp()
            columns = (self.classes(kind), sides, self.centerness(place))
            rows.append([c.permute(0, 2, 3, 1).flatten(1, 2) for c in columns])
        logits, distances, centerness = (torch.cat(c, 1) for c in zip(*rows, strict=True))
        return logits, distances, centerness[..., 0]


class MaskScore(nn.Module):
    """The IoU of a mask with its object, guessed from the region and the mask: R×classes."""

    def __init__(self, in_channels: int, width: int, convs: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            channels = in_channels + 1 if i == 0 else width
            layers.append(nn.Conv2d(channels, width, 3, 2 if i == convs - 1 else 1, padding=1))
            layers.append(nn.ReLU(inplace=True))
        cells = POOLED // 2
        self.convs = nn.Sequential(*layers, nn.Flatten())
        self.linear = nn.Sequential(
            nn.Linear(width * cells**2, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()
        )
        self.overlaps = nn.Linear(1024, num_classes)

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        smaller = nn.functional.max_pool2d(probabilities[:, None], 2).to(features.dtype)
        return self.overlaps(self.linear(self.convs(torch.cat([features, smaller], 1)))).float()


class CenterMask(nn.Module):
    """N×3×H×W images, sides multiples of 128, to a `CenterMaskOutput`, alike in train and eval.

    The backbone gives maps at strides 8, 16 and 32. Masks are drawn on the boxes found, so they
    lie in `terms` and `decode`. `num_classes` counts objects only.
    """

    def __init__(self, backbone: Backbone, num_classes: int, spec: CenterMaskSpec) -> None:
        super().__init__()
        self.pyramid = Pyramid(backbone, spec.width, "conv")
        self.boxes = FCOSHead(spec.width, spec.tower, num_classes)
        self.mask_head = MaskHead(
            spec.width, spec.mask_width, spec.mask_convs, num_classes, attention=True
        )
        self.mask_score = MaskScore(spec.width, spec.mask_width, spec.mask_convs, num_classes)
        self.criterion = FCOSLoss(STRIDES, _RANGES)
        self.width = spec.width

    def forward(self, images: Tensor) -> CenterMaskOutput:
        maps = self.pyramid(images)
        return CenterMaskOutput(*maps, *self.boxes(maps))

    def terms(
        self, outputs: CenterMaskOutput, targets: Sequence[Target], image_size: tuple[int, int]
    ) -> dict[str, Term]:
        """Terms "class", "box", "centerness", "mask" and "mask_score"."""
        terms = self.criterion(outputs, targets, image_size)
        with torch.no_grad():
            found = self._boxes(outputs, image_size, _TRAINING, _TRAIN_REGIONS)
        regions = [
            masked_objects(match_regions(f.boxes, t), t)
            for f, t in zip(found, targets, strict=True)
        ]
        features = self._pool(outputs, [r.boxes for r in regions], image_size)
        pairs = list(zip(regions, targets, strict=True))
        labels = torch.cat([t.labels[r.matched] for r, t in pairs])
        logits = of_class(self.mask_head(features).float(), labels)
        seen = torch.cat([mask_targets(t.masks, r, MASK) for r, t in pairs if t.masks is not None])
        count = logits.new_full((), len(labels))
        terms["mask"] = mask_loss(logits, seen, count)
        apart = self._score_distance(features, logits, labels, seen, regions, targets)
        terms["mask_score"] = Term(apart, count)
        return terms

    def _score_distance(
        self,
        features: Tensor,
        logits: Tensor,
        labels: Tensor,
        seen: Tensor,
        regions: Sequence[Regions],
        targets: Sequence[Target],
    ) -> Tensor:
        probabilities = logits.detach().sigmoid()
        guessed = of_class(self.mask_score(features, probabilities), labels)
        overlaps = mask_overlaps(probabilities, seen, regions, targets)
        return (guessed - overlaps).square().sum()

    def decode(
        self, outputs: CenterMaskOutput, image_size: tuple[int, int], how: Options
    ) -> list[Found]:
        """Detections of every image, in input pixels; masks as probabilities on 28×28 cells, with
        `mask_scores`, the score times the mask's guessed IoU."""
        found = self._boxes(outputs, image_size, how, MAX_DETECTIONS)
        features = self._pool(outputs, [f.boxes for f in found], image_size)
        labels = torch.cat([f.labels for f in found])
        masks = of_class(self.mask_head(features).float(), labels).sigmoid()
        guessed = of_class(self.mask_score(features, masks), labels).clamp(0, 1)
        counts = [len(f.labels) for f in found]
        return [
            f._replace(masks=mask, mask_scores=f.scores * guess)
            for f, mask, guess in zip(
                found, masks.split(counts), guessed.split(counts), strict=True
            )
        ]

    def second_stage(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        """As `RCNN.second_stage`."""
        drawn = like.new_empty(count * MAX_DETECTIONS, self.width, POOLED, POOLED)
        masks = self.mask_head(drawn)
        return masks, self.mask_score(drawn, masks[:, 0])

    def _boxes(
        self,
        outputs: CenterMaskOutput,
        image_size: tuple[int, int],
        how: Options,
        most: int,
    ) -> list[Found]:
        """Boxes by FCOS: √(class · centre-ness), a class above `how.conf` competes."""
        points, strides = anchor_points(*image_size, STRIDES)
        points = points.to(outputs.distances.device)
        strides = strides.to(points.device)
        found = []
        for logits, distances, centre in zip(
            outputs.class_logits.float(),
            outputs.distances.float(),
            outputs.centerness.float(),
            strict=True,
        ):
            likely = likely_rows(logits, how.conf**2)  # scores are roots of products
            scores = logits[likely].sigmoid() * centre[likely].sigmoid()[:, None]
            pairs = best_pairs(likely, scores.sqrt(), how.conf)
            rows = pairs.rows
            boxes = decode_distances(distances[rows], points[rows], strides[rows])
            boxes = clip_boxes_to_image(boxes, image_size)
            found.append(Found(*suppress(boxes, pairs, how, most)))
        return found

    def _pool(
        self, outputs: CenterMaskOutput, boxes: Sequence[Tensor], image_size: tuple[int, int]
    ) -> Tensor:
        levels = [adaptive_levels(b, image_size) for b in boxes]
        return pool_regions(outputs[:3], STRIDES[:3], boxes, levels, POOLED)
