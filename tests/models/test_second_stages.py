"""Decoding after the second stage, against torchvision's on the same outputs of the networks."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import roi_align

from vovnet.boxes.anchors import anchor_points
from vovnet.detect.options import Options
from vovnet.models import create_detector, rcnn
from vovnet.models.centermask import CenterMask, CenterMaskOutput, adaptive_levels
from vovnet.models.detector import Found
from vovnet.models.mask_head import SpatialAttention
from vovnet.models.rcnn import RCNN, Proposing

SIZE, CLASSES = (128, 128), 3
STRIDES = (8, 16, 32, 64, 128)  # of FCOS
RULE = Proposing(60, 60, 0.7, 0.01)


def network(family: str) -> nn.Module:
    torch.manual_seed(0)
    return create_detector(f"{family}-vovnet19_slim_dw", ("a", "b", "c")).network.eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def assert_found(found: Found, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    assert found.labels.tolist() == labels.tolist()
    torch.testing.assert_close(found.scores, scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.boxes, boxes, rtol=1e-5, atol=1e-3)


@pytest.fixture
def decisive(monkeypatch) -> RCNN:
    """An R-CNN whose second stage says more than its first weights would: classes that differ, and
    boxes moved by tenths of their sides. Few regions, since each costs a second stage."""
    monkeypatch.setattr(rcnn, "proposing_in_use", lambda _: RULE)
    made = network("fasterrcnn_lite")
    assert isinstance(made, RCNN)
    with torch.no_grad():
        made.box_head.classes.weight.normal_(0, 0.2)
        made.box_head.offsets.weight.normal_(0, 0.2)
    return made


@pytest.mark.parametrize(("conf", "iou"), [(0.35, 0.5), (0.5, 0.2)])
@torch.no_grad()
def test_regions_are_decoded_as_torchvision_does(decisive, conf, iou):
    outputs = decisive(images())
    proposals = decisive._propose(outputs, SIZE, RULE)
    logits, offsets = decisive.box_head(decisive._pool(outputs, proposals, 7))
    assert offsets.std() > 0.3
    background = torch.zeros(len(offsets), 1, 4)  # torchvision has a box for it too
    theirs = RoIHeads(
        *(None, None, None, 0.5, 0.5, 512, 0.25, (10.0, 10.0, 5.0, 5.0)), conf, iou, 100
    ).postprocess_detections(
        logits, torch.cat([background, offsets], 1).flatten(1), proposals, [SIZE] * 2
    )
    found = decisive.decode(outputs, SIZE, Options(conf, iou))
    for mine, boxes, scores, labels in zip(found, *theirs, strict=True):
        assert 5 < len(labels) < 100
        assert len(labels.unique()) > 1
        assert_found(mine, boxes, scores, labels - 1)


@torch.no_grad()
def test_regions_that_the_first_stage_is_sure_of_are_not_classified(decisive):
    """Objectness below the rule's bar is left out."""
    outputs = decisive(images())
    bar = torch.tensor(0.01).logit()
    sure = outputs._replace(objectness=torch.full_like(outputs.objectness, float(bar) - 0.01))
    assert [len(f.labels) for f in decisive.decode(sure, SIZE, Options(0.0, 0.5))] == [0, 0]
    rule = RULE._replace(min_objectness=0.0)
    assert all(len(boxes) > 0 for boxes in decisive._propose(sure, SIZE, rule))
    unsure = outputs._replace(objectness=torch.full_like(outputs.objectness, float(bar) + 0.01))
    assert all(len(f.labels) > 0 for f in decisive.decode(unsure, SIZE, Options(0.0, 0.5)))


def centermask_outputs(centermask: CenterMask) -> CenterMaskOutput:
    """The network's maps, with dense predictions that are sure of a few things."""
    generator = torch.Generator().manual_seed(1)
    outputs = centermask(images())

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    return outputs._replace(
        class_logits=random(outputs.class_logits) * 2 - 2,
        distances=random(outputs.distances).exp(),
        centerness=random(outputs.centerness) * 2,
    )


@pytest.mark.parametrize(("conf", "iou"), [(0.3, 0.6), (0.1, 0.3), (0.6, 0.6)])
@torch.no_grad()
def test_centermask_boxes_are_torchvisions_fcos(conf, iou):
    centermask = network("centermask_lite")
    outputs = centermask_outputs(centermask)
    points, strides = anchor_points(*SIZE, STRIDES)
    half = strides[:, None] / 2
    anchors = torch.cat([points - half, points + half], 1)
    theirs = FCOS.postprocess_detections(
        SimpleNamespace(
            score_thresh=conf,
            topk_candidates=1000,
            nms_thresh=iou,
            detections_per_img=50,
            box_coder=BoxLinearCoder(normalize_by_size=True),
        ),
        {
            "cls_logits": [outputs.class_logits],
            "bbox_regression": [outputs.distances],
            "bbox_ctrness": [outputs.centerness[..., None]],
        },
        [[anchors]] * 2,
        [SIZE] * 2,
    )
    for mine, wanted in zip(
        centermask.decode(outputs, SIZE, Options(conf, iou)), theirs, strict=True
    ):
        assert len(wanted["labels"]) > 10
        assert_found(mine, wanted["boxes"], wanted["scores"], wanted["labels"])


@torch.no_grad()
def test_scores_of_centermask_start_near_one_percent():
    """Else the first steps drown in background (RetinaNet); and boxes start a stride wide."""
    outputs = network("centermask_lite")(images())
    assert outputs.class_logits.sigmoid().mean() == pytest.approx(0.01, rel=0.2)
    assert outputs.centerness.sigmoid().mean() == pytest.approx(0.5, rel=0.2)
    assert outputs.distances.log().mean().abs() < 0.2


@torch.no_grad()
def test_every_mask_and_its_score_are_those_of_its_region_alone():
    """Each detection's region pooled, drawn and judged on its own, by its class's columns."""
    centermask = network("centermask_lite")
    nn.init.normal_(centermask.mask_score.overlaps.weight, std=1.0)  # else all guesses are alike
    outputs = centermask_outputs(centermask)
    guesses = []
    for image, found in enumerate(centermask.decode(outputs, SIZE, Options(0.3, 0.6))):
        assert len(found.labels) > 10
        for box, score, label, mask, mask_score in zip(*found, strict=True):
            level = int(adaptive_levels(box[None], SIZE))
            one = outputs[level][image : image + 1]
            features = roi_align(one, [box[None]], 14, 1 / STRIDES[level], 2, aligned=True)
            drawn = centermask.mask_head(features)[0, label].sigmoid()
            guess = float(centermask.mask_score(features, drawn[None])[0, label])
            guesses.append(guess)
            torch.testing.assert_close(mask, drawn, rtol=1e-4, atol=1e-5)
            wanted = score * min(1.0, max(0.0, guess))
            torch.testing.assert_close(mask_score, wanted, rtol=1e-4, atol=1e-5)
    assert min(guesses) < 0  # the bars at 0 and 1 are met
    assert max(guesses) > 1


@torch.no_grad()
def test_the_mask_score_sees_mask_and_features():
    """The mask's larger pixel of each four goes in beside the features (the released code)."""
    score = network("centermask_lite").mask_score
    features = torch.randn(2, 128, 14, 14, generator=torch.Generator().manual_seed(2))
    masks = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(3))
    largest = masks.reshape(2, 14, 2, 14, 2).amax((2, 4))
    wanted = score.overlaps(score.linear(score.convs(torch.cat([features, largest[:, None]], 1))))
    torch.testing.assert_close(score(features, masks), wanted)


@torch.no_grad()
def test_where_a_mask_is_looked_for_follows_from_mean_and_maximum():
    """Equation 2 of CenterMask, with a convolution of the pixel itself: 2·mean − max."""
    attention = SpatialAttention()
    nn.init.zeros_(attention.conv.weight)
    attention.conv.weight[0, :, 1, 1] = torch.tensor([2.0, -1.0])
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0]])[None, :, :, None]  # two channels, two pixels
    gates = torch.tensor([2 * 2 - 3.0, 2 * 1 - 4.0]).sigmoid()  # means 2 and 1, maxima 3 and 4
    wanted = torch.tensor([[1.0, -2.0], [3.0, 4.0]]) * gates
    torch.testing.assert_close(attention(x)[0, :, :, 0], wanted)
