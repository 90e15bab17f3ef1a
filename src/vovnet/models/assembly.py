"""Detectors put together: network, criterion, decoder and input spec, one function a family."""

from collections.abc import Sequence

from vovnet.boxes.anchors import PriorLevel, prior_boxes
from vovnet.losses.multibox import MultiBoxLoss, RefineLoss
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models import dsod, dsod_densenet, reference, refinedet, vovdet, vovnet
from vovnet.models.backbone import Backbone
from vovnet.models.detector import Detector, PointDecoder, PriorDecoder, RefineDecoder
from vovnet.models.input_spec import InputSpec

Names = tuple[str, ...]

# Mean of the paper's training (BGR 104, 117, 123), no scaling; and a plain mid-grey scaling.
_CAFFE = {"mean": (123.0, 117.0, 104.0), "std": (1.0, 1.0, 1.0)}
_GREY = {"mean": (114.0, 114.0, 114.0), "std": (58.0, 58.0, 58.0)}


def vovdet_detector(name: str, size: int, names: Names) -> Detector:
    """VoVDet by the name of its spec, with an input of size×size pixels."""
    return Detector(
        name,
        vovdet.VoVDet(vovdet.SPECS[name], len(names)),
        TaskAlignedLoss(vovdet.STRIDES),
        PointDecoder(vovdet.STRIDES),
        InputSpec((size, size), "letterbox", **_GREY, multiple=32),
        names,
    )


def dsod_on_vovnet(name: str, spec: str, dense: bool, names: Names) -> Detector:
    """DSOD300 on a VoVNet, its extra levels by dense or by plain prediction."""
    backbone = vovnet.VoVNet(vovnet.SPECS[spec], out_indices=(2, 3, 4))
    return _dsod(name, backbone, dsod.VOVNET_PRIORS, (128, 128, 128), dense, names)


def dsod_on_densenet(name: str, spec: str, names: Names) -> Detector:
    """DSOD300 as published, on its own DenseNet."""
    backbone = dsod_densenet.DSODDenseNet(dsod_densenet.SPECS[spec])
    return _dsod(name, backbone, dsod.DENSENET_PRIORS, (256, 128, 128, 128), True, names)


def _dsod(
    name: str,
    backbone: Backbone,
    levels: tuple[PriorLevel, ...],
    halves: Sequence[int],
    dense: bool,
    names: Names,
) -> Detector:
    priors = prior_boxes(levels)
    return Detector(
        name,
        dsod.DSOD(backbone, len(names) + 1, levels, halves, dense=dense),
        MultiBoxLoss(priors),
        PriorDecoder(priors),
        InputSpec((300, 300), "warp", **_CAFFE),
        names,
    )


def refinedet_detector(name: str, size: int, backbone: str, names: Names) -> Detector:
    """RefineDet at size×size pixels on any backbone with taps at strides 8, 16 and 32."""
    trunk: Backbone
    if backbone in vovnet.SPECS:
        trunk = vovnet.VoVNet(vovnet.SPECS[backbone])
    else:
        trunk = reference.ReferenceBackbone(backbone, caffe_stride=True)
    trunk.select_strides((8, 16, 32))
    anchors = prior_boxes(refinedet.anchor_levels(size))
    return Detector(
        name,
        refinedet.RefineDet(trunk, len(names) + 1),
        RefineLoss(anchors),
        RefineDecoder(anchors),
        InputSpec((size, size), "warp", **_CAFFE),
        names,
    )
