"""RefineDet: anchors, the two-step loss and the two-step decoder."""

import pytest
import torch

from vovnet.boxes.anchors import prior_boxes
from vovnet.detect.options import Options
from vovnet.losses import Target, means
from vovnet.losses.multibox import RefineLoss
from vovnet.models import create_detector
from vovnet.models.detector import RefineDecoder
from vovnet.models.refinedet import RefineDetOutput, anchor_levels

NOTHING = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
SOMETHING = Target(torch.tensor([[40.0, 60.0, 200.0, 180.0]]), torch.tensor([1]))


@pytest.mark.parametrize(("size", "count"), [(320, 6375), (512, 16320)])
def test_number_of_anchors(size, count):
    anchors = prior_boxes(anchor_levels(size))
    assert len(anchors) == count
    assert anchors[0].tolist() == [4.0, 4.0, 32.0, 32.0]
    assert anchors[-1, 2:].tolist() == pytest.approx([256 / 2**0.5, 256 * 2**0.5])


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create_detector("refinedet320-vovnet27_slim", ("a", "b", "c"))


@pytest.mark.parametrize("targets", [[NOTHING, NOTHING], [SOMETHING, NOTHING]])
def test_loss_and_gradients_are_finite(detector, targets):
    detector.train().zero_grad()
    outputs = detector(torch.rand(2, 3, 320, 320))
    assert outputs.class_logits.shape == (2, 6375, 4)
    losses = detector.loss(outputs, targets, (320, 320))
    assert losses.keys() == {"arm_class", "arm_box", "class", "box"}
    sum(losses.values()).backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def plain_outputs(anchors: int) -> RefineDetOutput:
    """Sure of background everywhere, in both steps; nothing moved."""
    arm, classes = torch.zeros(1, anchors, 2), torch.zeros(1, anchors, 4)
    arm[..., 0] = classes[..., 0] = 9.0
    return RefineDetOutput(arm, torch.zeros(1, anchors, 4), classes, torch.zeros(1, anchors, 4))


def test_decoding_moves_an_anchor_twice():
    anchors = torch.tensor([[100.0, 100.0, 40.0, 40.0], [200.0, 200.0, 40.0, 40.0]])
    outputs = plain_outputs(2)
    outputs.arm_logits[0, 0, 1] = 12.0
    outputs.class_logits[0, 0, 2] = 14.0
    outputs.arm_offsets[0, 0, 0] = 2.5  # 0.1 · 2.5 · 40 = 10 right
    outputs.offsets[0, 0, 1] = -5.0  # 0.1 · 5 · 40 = 20 up
    found = RefineDecoder(anchors)(outputs, (320, 320), Options(0.5, 0.45))[0]
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.boxes, torch.tensor([[90.0, 60.0, 130.0, 100.0]]))


def test_sure_background_of_the_first_step_is_dropped():
    anchors = torch.tensor([[100.0, 100.0, 40.0, 40.0]])
    outputs = plain_outputs(1)
    outputs.class_logits[0, 0, 2] = 14.0
    assert len(RefineDecoder(anchors)(outputs, (320, 320), Options(0.5, 0.45))[0].boxes) == 0
    losses = means(RefineLoss(anchors)(outputs, [NOTHING], (320, 320)))
    assert losses["class"] == 0  # wrong, but no negative of the second step
    assert losses["arm_class"] > 0


def test_second_step_has_no_gradient_into_the_first():
    anchors = torch.tensor([[100.0, 100.0, 40.0, 40.0]])
    outputs = RefineDetOutput(*(x.requires_grad_() for x in plain_outputs(1)))
    target = Target(torch.tensor([[80.0, 84.0, 120.0, 124.0]]), torch.tensor([0]))
    losses = means(RefineLoss(anchors)(outputs, [target], (320, 320)))
    (losses["class"] + losses["box"]).backward()
    assert outputs.arm_offsets.grad is None
    assert outputs.arm_logits.grad is None
    assert outputs.offsets.grad.abs().sum() > 0
