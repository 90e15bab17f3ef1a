"""Priors, loss and decoding against torchvision's SSD, which reads the same tensors."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from vovnet.boxes.anchors import prior_boxes
from vovnet.detect.options import Options
from vovnet.losses import Target, means
from vovnet.losses.multibox import MultiBoxLoss
from vovnet.models.detector import PriorDecoder
from vovnet.models.dsod import PriorOutput, prior_levels

SIDES = (37, 18, 9, 5, 3, 2)
SIZE = (300, 300)
CLASSES = 5  # with the background
PRIORS = prior_boxes(prior_levels(SIDES))
CORNERS = box_convert(PRIORS, "cxcywh", "xyxy")


@pytest.fixture(scope="module")
def theirs() -> SSD:
    levels = prior_levels(SIDES)
    sizes = [level.min_size for level in levels] + [levels[-1].max_size]
    boxes = DefaultBoxGenerator(
        [[int(ratio) for ratio in level.ratios] for level in levels],
        scales=[size / 300 for size in sizes],
        steps=[level.step for level in levels],
        clip=False,
    )
    return SSD(
        *(nn.Identity(), boxes, SIZE, CLASSES),
        head=nn.Identity(),
        score_thresh=0.3,
        nms_thresh=0.45,
        detections_per_img=300,
        iou_thresh=0.5,
    )


def test_priors(theirs):
    maps = [torch.zeros(1, 8, side, side) for side in SIDES]
    images = ImageList(torch.zeros(1, 3, *SIZE), [SIZE])
    torch.testing.assert_close(theirs.anchor_generator(images, maps)[0], CORNERS)


def random_targets(generator: torch.Generator) -> list[Target]:
    """Two images of objects whose best priors differ: else torchvision gives one to the last."""
    targets = []
    for count in (4, 7):
        corner = torch.rand(count, 2, generator=generator) * 200
        side = torch.rand(count, 2, generator=generator) * 80 + 20
        boxes = torch.cat([corner, corner + side], 1)
        assert len(box_iou(boxes, CORNERS).argmax(1).unique()) == count
        labels = torch.randint(0, CLASSES - 1, (count,), generator=generator)
        targets.append(Target(boxes, labels))
    return targets


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients(theirs, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = random_targets(generator)
    logits = torch.randn(2, len(PRIORS), CLASSES, generator=generator, requires_grad=True)
    offsets = torch.randn(2, len(PRIORS), 4, generator=generator, requires_grad=True)
    matches = [theirs.proposal_matcher(box_iou(t.boxes, CORNERS)) for t in targets]
    expected = theirs.compute_loss(
        [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets],
        {"cls_logits": logits, "bbox_regression": offsets},
        [CORNERS, CORNERS],
        matches,
    )
    losses = means(MultiBoxLoss(PRIORS)(PriorOutput(logits, offsets), targets, SIZE))
    torch.testing.assert_close(losses["class"], expected["classification"])
    torch.testing.assert_close(losses["box"], expected["bbox_regression"])
    wanted = torch.autograd.grad(sum(expected.values()), [logits, offsets])
    found = torch.autograd.grad(sum(losses.values()), [logits, offsets])
    for mine, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("seed", range(3))
def test_detections(theirs, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, len(PRIORS), CLASSES, generator=generator)
    # torchvision clips boxes before the suppression, we do after: leave only boxes well inside.
    inside = ((CORNERS > 10) & (CORNERS < 290)).all(1)
    busy = inside & (torch.rand(len(PRIORS), generator=generator) < 0.03)
    logits[0, ~busy, 0] = 20.0
    offsets = torch.randn(1, len(PRIORS), 4, generator=generator) / 4
    expected = theirs.postprocess_detections(
        {"cls_logits": logits, "bbox_regression": offsets}, [CORNERS], [SIZE]
    )[0]
    found = PriorDecoder(PRIORS)(PriorOutput(logits, offsets), SIZE, Options(0.3, 0.45))[0]
    assert 50 < len(found.boxes) < 300
    torch.testing.assert_close(found.scores, expected["scores"])
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=1e-5, atol=1e-3)
    assert found.labels.tolist() == (expected["labels"] - 1).tolist()
