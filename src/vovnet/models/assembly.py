"""Detectors put together: network, criterion, decoder and input spec, one function a family.

Each takes what tells apart the families that it makes, then the detector's name, its backbone's
and the class names (without the background).
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from vovnet.boxes.anchors import PriorLevel, prior_boxes
from vovnet.input_spec import InputSpec
from vovnet.losses.multibox import MultiBoxLoss, RefineLoss
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models import centermask, dsod, refinedet, ssd, vovdet
from vovnet.models.detector import Detector, PointDecoder, PriorDecoder, RefineDecoder
from vovnet.models.rcnn import RCNN
from vovnet.models.trunks import create_backbone

Names = tuple[str, ...]

# Mean of the paper's training (BGR 104, 117, 123), no scaling; and a plain mid-grey scaling.
_CAFFE = {"mean": (123.0, 117.0, 104.0), "std": (1.0, 1.0, 1.0)}
_GREY = {"mean": (114.0, 114.0, 114.0), "std": (58.0, 58.0, 58.0)}


def _priors(levels: Sequence[PriorLevel]) -> Tensor:
    """Prior boxes; real ones also where a network is built without numbers."""
    with torch.device("cpu"):
        return prior_boxes(levels)


def vovdet_detector(size: int, name: str, trunk: str, names: Names) -> Detector:
    """VoVDet by the name of its spec, with an input of size×size pixels; its backbone is its own
    (`trunk` is empty)."""
    return Detector(
        name,
        vovdet.VoVDet(vovdet.SPECS[name], len(names)),
        TaskAlignedLoss(vovdet.STRIDES),
        PointDecoder(vovdet.STRIDES),
        InputSpec((size, size), "letterbox", **_GREY, multiple=32),
        names,
    )


def dsod_detector(dense: bool, name: str, trunk: str, names: Names) -> Detector:
    """DSOD300, its extra levels by dense or by plain prediction, on a backbone with taps at
    strides 8 and 16; one at 32, if there is, saves an extra level."""
    backbone = create_backbone(trunk, strides=(8, 16))
    halves = (256, 128, 128, 128)
    if any(info.stride == 32 for info in backbone.feature_info):
        backbone.select_strides((8, 16, 32))
        halves = halves[1:]
    cells = [*backbone.map_sides(300)]
    for _ in halves:
        cells.append(ceil(cells[-1] / 2))
    levels = dsod.prior_levels(cells)
    priors = _priors(levels)
    return Detector(
        name,
        dsod.DSOD(backbone, len(names) + 1, levels, halves, dense=dense),
        MultiBoxLoss(priors),
        PriorDecoder(priors),
        InputSpec((300, 300), "warp", **_CAFFE),
        names,
    )


def ssd_detector(family: str, name: str, trunk: str, names: Names) -> Detector:
    """SSD300 or Pelee304 by the name of its spec, on a backbone with taps at strides 16 and 32."""
    spec = ssd.SPECS[family]
    backbone = create_backbone(trunk, strides=(16, 32))
    levels = spec.levels(backbone.map_sides(spec.side))
    priors = _priors(levels)
    return Detector(
        name,
        ssd.SSD(backbone, spec, levels, len(names) + 1),
        MultiBoxLoss(priors),
        PriorDecoder(priors),
        InputSpec((spec.side, spec.side), "warp", mean=spec.mean, std=spec.std),
        names,
    )


def refinedet_detector(size: int, name: str, trunk: str, names: Names) -> Detector:
    """RefineDet at size×size pixels on any backbone with taps at strides 8, 16 and 32."""
    backbone = create_backbone(trunk, strides=(8, 16, 32), caffe_stride=True)
    anchors = _priors(refinedet.anchor_levels(size))
    return Detector(
        name,
        refinedet.RefineDet(backbone, len(names) + 1),
        RefineLoss(anchors),
        RefineDecoder(anchors),
        InputSpec((size, size), "warp", **_CAFFE),
        names,
    )


# The paper's inputs have a shorter side of 800; letterboxed, a square is the fair middle.
_REGION_INPUT = InputSpec((800, 800), "letterbox", **_GREY, multiple=32)


def rcnn_detector(width: int, masks: bool, name: str, trunk: str, names: Names) -> Detector:
    """Faster R-CNN, or with `masks` Mask R-CNN, with a pyramid of `width` channels on any backbone
    with taps at strides 4 to 32, normalised by groups throughout."""
    backbone = create_backbone(trunk, strides=(4, 8, 16, 32), norm="group")
    network = RCNN(backbone, len(names) + 1, width=width, masks=masks)
    return Detector(name, network, None, None, _REGION_INPUT, names, masks=masks)


def centermask_detector(spec: str, name: str, trunk: str, names: Names) -> Detector:
    """CenterMask on any backbone with taps at strides 8, 16 and 32, normalised by groups."""
    backbone = create_backbone(trunk, strides=(8, 16, 32), norm="group")
    network = centermask.CenterMask(backbone, len(names), centermask.SPECS[spec])
    return Detector(name, network, None, None, _REGION_INPUT, names, masks=True)
