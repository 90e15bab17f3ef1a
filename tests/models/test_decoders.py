"""Decoders against dense ones: every score and box computed, classes suppressed one by one."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, nms

from vovnet.boxes.anchors import anchor_points, prior_boxes
from vovnet.boxes.coding import decode_distances, decode_offsets
from vovnet.detect.options import Options
from vovnet.models.detector import Found, PointDecoder, PriorDecoder, RefineDecoder
from vovnet.models.dsod import PriorOutput
from vovnet.models.refinedet import RefineDetOutput, anchor_levels
from vovnet.models.vovdet import VoVDetOutput

SIZE, STRIDES, CLASSES = (128, 128), (8, 16, 32), 3
PRIORS = prior_boxes(anchor_levels(128))  # 1,020 of them
VARIANCES = (0.1, 0.2)
DECODERS = {
    "point": PointDecoder(STRIDES),
    "prior": PriorDecoder(PRIORS),
    "refine": RefineDecoder(PRIORS, min_objectness=0.4),
}
KINDS = sorted(DECODERS)


def outputs_of(kind: str, seed: int, batch: int = 2, classes: int = CLASSES) -> tuple:
    """What such a network might say; about a third of the rows are sure of something."""
    generator = torch.Generator().manual_seed(seed)
    count = len(anchor_points(*SIZE, STRIDES)[0]) if kind == "point" else len(PRIORS)

    def random(columns: int) -> Tensor:
        return torch.randn(batch, count, columns, generator=generator) * 2

    if kind == "point":
        return VoVDetOutput(random(classes) - 2, random(4).abs())
    if kind == "prior":
        return PriorOutput(random(1 + classes), random(4))
    return RefineDetOutput(random(2), random(4) / 3, random(1 + classes), random(4))


def dense(kind: str, outputs: tuple) -> tuple[Tensor, Tensor]:
    """Scores N×A×C and boxes N×A×4 of everything."""
    outputs = type(outputs)(*(x.float() for x in outputs))
    if kind == "point":
        boxes = decode_distances(outputs.distances, *anchor_points(*SIZE, STRIDES))
        return outputs.class_logits.sigmoid(), boxes
    scores = outputs.class_logits.softmax(2)[..., 1:]
    if kind == "prior":
        return scores, decode_offsets(outputs.offsets, PRIORS, VARIANCES)
    refined = decode_offsets(outputs.arm_offsets, PRIORS, VARIANCES)
    boxes = decode_offsets(outputs.offsets, box_convert(refined, "xyxy", "cxcywh"), VARIANCES)
    passing = outputs.arm_logits.softmax(2)[..., 1:] >= DECODERS["refine"].min_objectness
    return scores * passing, boxes


def one_by_one(scores: Tensor, boxes: Tensor, conf: float, iou: float, most: int) -> Found:
    """The best 1,000 pairs over `conf` of one image, each class suppressed on its own."""
    values, order = scores.flatten().sort(descending=True)
    order = order[values > conf][:1000]
    values = values[: len(order)]
    row, label = order // scores.shape[1], order % scores.shape[1]
    keep = torch.zeros_like(row, dtype=torch.bool)
    for one in range(scores.shape[1]):
        own = (label == one).nonzero().flatten()
        keep[own[nms(boxes[row[own]].double(), values[own].double(), iou)]] = True
    return Found(boxes[row[keep]][:most], values[keep][:most], label[keep][:most])


def assert_equal_found(found: Found, expected: Found) -> None:
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conf", [0.0, 0.01, 0.4, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_decoders_equal_dense_decoding(kind, conf, dtype):
    outputs = type(outputs_of(kind, 0))(*(x.to(dtype) for x in outputs_of(kind, 0)))
    results = DECODERS[kind](outputs, SIZE, Options(conf, 0.45))
    most = 500 if kind == "refine" else 300
    for found, scores, boxes in zip(results, *dense(kind, outputs), strict=True):
        expected = one_by_one(scores, boxes, conf, 0.45, most)
        assert len(expected.scores) > 0
        if dtype == torch.float16:  # halves give many equal scores, whose order is free
            torch.testing.assert_close(found.scores[:20], expected.scores[:20])
            continue
        assert_equal_found(found, expected)


def test_prior_decoder_equals_torchvision():
    """Where the two mean the same: no more candidates than either takes, boxes in the image."""
    generator = torch.Generator().manual_seed(5)
    inside = ((PRIORS[:, :2] - 64).abs() + PRIORS[:, 2:] * 0.6 < 64).all(1)
    logits = torch.randn(1, len(PRIORS), 1 + CLASSES, generator=generator)
    logits[0, ~inside, 0] = 30.0
    offsets = torch.randn(1, len(PRIORS), 4, generator=generator) / 5
    (found,) = PriorDecoder(PRIORS)(PriorOutput(logits, offsets), SIZE, Options(0.4, 0.45))
    settings = SimpleNamespace(
        box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)),
        score_thresh=0.4,
        topk_candidates=400,
        nms_thresh=0.45,
        detections_per_img=300,
    )
    outputs = {"bbox_regression": offsets, "cls_logits": logits}
    corners = [box_convert(PRIORS, "cxcywh", "xyxy")]
    (theirs,) = SSD.postprocess_detections(settings, outputs, corners, [SIZE])
    assert 50 < len(found.boxes) < 300
    assert_equal_found(found, Found(theirs["boxes"], theirs["scores"], theirs["labels"] - 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_wild_outputs_are_dropped_and_harm_no_other(kind, bad):
    """Every kind of output in turn, in a third of the rows; the other rows decode as ever."""
    for field in range(len(outputs_of(kind, 0))):
        outputs, silent = outputs_of(kind, 1), outputs_of(kind, 1)
        outputs[field][:, ::3] = bad
        silent[-2][:, ::3] = -30.0  # class logits: nothing there
        silent[-2][:, ::3, 0] = -30.0 if kind == "point" else 30.0
        results = DECODERS[kind](outputs, SIZE, Options(0.3, 0.45))
        for found, expected in zip(
            results, DECODERS[kind](silent, SIZE, Options(0.3, 0.45)), strict=True
        ):
            assert found.boxes.isfinite().all()
            assert found.scores.isfinite().all()
            if kind == "point" and field == 0 and bad == math.inf:
                assert (found.scores == 1).any()  # sigmoid(∞): sure, and a box like any other
            else:
                assert len(expected.boxes) > 0
                assert_equal_found(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_nan(kind):
    outputs = outputs_of(kind, 2)
    for x in outputs:
        x.fill_(math.nan)
    assert [len(found.boxes) for found in DECODERS[kind](outputs, SIZE, Options(0.0, 0.45))] == [
        0,
        0,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_decode(kind):
    decode = DECODERS[kind]
    assert decode(outputs_of(kind, 3, batch=0), SIZE, Options(0.25, 0.45)) == []
    for outputs, conf in ((outputs_of(kind, 3, classes=0), 0.25), (outputs_of(kind, 3), 1.0)):
        for found in decode(outputs, SIZE, Options(conf, 0.45)):
            assert (found.boxes.shape, found.scores.shape) == ((0, 4), (0,))
            assert (found.labels.shape, found.labels.dtype) == ((0,), torch.int64)
