from math import sqrt

import pytest
import torch
from torch import nn

from vovnet.boxes.anchors import prior_boxes
from vovnet.lab import count
from vovnet.models import create_model
from vovnet.models.dsod import DSOD, DensePrediction, prior_levels
from vovnet.models.layers import L2Norm
from vovnet.models.vovnet import SPECS, VoVNet

SIDES = (37, 18, 9, 5, 3, 2)
LEVELS = prior_levels(SIDES)


def network(spec: str = "vovnet27_slim", device: str = "cpu", dense: bool = True) -> DSOD:
    with torch.device(device):
        backbone = VoVNet(SPECS[spec], out_indices=(2, 3, 4))
        return DSOD(backbone, 21, LEVELS, (128, 128, 128), dense=dense)


def test_priors_by_the_formulas():
    """SSD section 2.2 with DSOD's sizes, steps and ratios, in plain loops."""
    sizes = (30, 60, 111, 162, 213, 264, 315)
    steps = (8, 16, 32, 64, 100, 150)
    expected = []
    for level, side in enumerate(SIDES):
        small, large = sizes[level], sizes[level + 1]
        shapes = [(small, small), (sqrt(small * large),) * 2]
        for ratio in (2, 3) if level in (1, 2, 3) else (2,):
            shapes.append((small * sqrt(ratio), small / sqrt(ratio)))
            shapes.append((small / sqrt(ratio), small * sqrt(ratio)))
        for row in range(side):
            for column in range(side):
                centre = ((column + 0.5) * steps[level], (row + 0.5) * steps[level])
                expected += [[*centre, *shape] for shape in shapes]
    priors = prior_boxes(LEVELS)
    assert len(expected) == 8108
    assert priors.dtype == torch.float32
    torch.testing.assert_close(priors, torch.tensor(expected))


def test_every_prior_has_its_centre_in_the_image():
    centres = prior_boxes(LEVELS)[:, :2]
    assert centres.min() > 0
    # The third map of 5 cells, 64 pixels apart, ends at 288; the released 300 for the last
    # level would put centres at 450.
    assert centres.max() < 300


@pytest.mark.parametrize(
    ("spec", "dense", "params", "gmacs"),
    [  # facts.md 0.4 and 0.5; the paper truncates to 5.9 / 5.6 and 4.8 / 4.6
        ("vovnet27_slim", True, 5_971_932, 5.66),
        ("vovnet27_slim", False, 6.28e6, None),
        ("vovnet27_slim_bottleneck", True, 4.87e6, 4.64),
    ],
)
def test_published_counts(spec, dense, params, gmacs):
    counts = count(network(spec, "meta", dense), (300, 300))
    assert counts.params == pytest.approx(params, rel=1e-3)
    if gmacs is not None:
        assert counts.macs / 1e9 == pytest.approx(gmacs, abs=6e-3)


def test_map_sizes():
    detector = network(device="meta").eval()
    sources = detector.backbone(torch.empty(1, 3, 300, 300, device="meta"))
    for extra in detector.extras:
        sources.append(extra(sources[-1]))
    assert [tuple(s.shape[1:]) for s in sources] == [
        *((256, 37, 37), (384, 18, 18), (512, 9, 9)),
        *((256, 5, 5), (256, 3, 3), (256, 2, 2)),
    ]
    output = detector(torch.empty(2, 3, 300, 300, device="meta"))
    assert output.class_logits.shape == (2, 8108, 21)
    assert output.offsets.shape == (2, 8108, 4)


def test_train_and_eval_give_the_same_structure():
    detector = network()
    images = torch.randn(2, 3, 128, 128)
    outputs = [detector.train(mode)(images) for mode in (True, False)]
    assert [type(o).__name__ for o in outputs] == ["PriorOutput", "PriorOutput"]
    shapes = [[(t.shape, t.dtype) for t in output] for output in outputs]
    assert shapes[0] == shapes[1]
    assert not torch.equal(outputs[0].offsets, outputs[1].offsets)  # batch statistics


@torch.no_grad()
def test_predictions_are_in_the_order_of_the_priors():
    """Level, row, column, shape; and each prior's columns together."""
    detector = network().eval()
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    sources = detector.backbone(images)
    output = detector(images)
    height, width = sources[0].shape[2:]
    head = detector.heads[0]
    classes, offsets = head.classes(head.norm(sources[0])), head.offsets(head.norm(sources[0]))
    for row, column, shape in ((0, 0, 0), (2, 5, 3), (height - 1, width - 1, 1)):
        prior = (row * width + column) * 4 + shape
        wanted = classes[0, shape * 21 : (shape + 1) * 21, row, column]
        assert torch.equal(output.class_logits[0, prior], wanted)
        wanted = offsets[0, shape * 4 : (shape + 1) * 4, row, column]
        assert torch.equal(output.offsets[0, prior], wanted)
    second = detector.heads[1]
    first_of_second = second.classes(second.norm(sources[1]))[0, :21, 0, 0]
    assert torch.equal(output.class_logits[0, height * width * 4], first_of_second)


def test_l2_norm_equals_torch():
    norm = L2Norm(6)
    assert norm.scale.tolist() == [20.0] * 6
    with torch.no_grad():
        norm.scale.copy_(torch.arange(1.0, 7.0))
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.normalize(x, dim=1) * torch.arange(1.0, 7.0).view(1, 6, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    # A dead position gives zeros, and finite gradients.
    zeros = torch.zeros(1, 6, 2, 2, requires_grad=True)
    norm(zeros).sum().backward()
    assert norm(zeros).eq(0).all()
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("side", [8, 9, 5, 3, 1])
@torch.no_grad()
def test_dense_prediction_halves(side):
    layer = DensePrediction(12, 5).eval()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 12, side, side)
    before = x.clone()
    out = layer(x)
    half = -(-side // 2)
    assert out.shape == (2, 10, half, half)
    assert torch.equal(x, before)  # both branches read it

    norm, _, conv = layer.pooled[1]
    pooled = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True)
    expected = nn.functional.conv2d(norm(pooled).relu(), conv.weight)
    torch.testing.assert_close(out[:, 5:], expected)

    (norm1, _, conv1), (norm2, _, conv2) = layer.learned
    y = nn.functional.conv2d(norm1(x).relu(), conv1.weight)
    expected = nn.functional.conv2d(norm2(y).relu(), conv2.weight, stride=2, padding=1)
    torch.testing.assert_close(out[:, :5], expected)


def test_named_detector_takes_300_pixels():
    with torch.device("meta"):
        detector = create_model("dsod300-vovnet27_slim", 21)
    assert isinstance(detector.network, DSOD)
    assert sum(p.numel() for p in detector.parameters()) == pytest.approx(5_971_932, rel=1e-3)
    spec = detector.input_spec
    assert (spec.size, spec.fit, spec.multiple) == ((300, 300), "warp", None)
    # The means of facts.md 4.1, there in BGR, and no scaling.
    assert (spec.mean, spec.std) == ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
