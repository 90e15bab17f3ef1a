import pytest
import torch
from torch import nn

from vovnet.boxes.anchors import anchor_points
from vovnet.lab import count
from vovnet.models import create_model
from vovnet.models.layers import fuse_norms
from vovnet.models.vovdet import SPECS, STRIDES, VoVDet
from vovnet.models.vovnet import SPECS as BACKBONES
from vovnet.models.vovnet import VoVNet


def nano(classes: int = 20, device: str = "cpu") -> VoVDet:
    with torch.device(device):
        return VoVDet(SPECS["vovdet_nano"], classes)


def dsod() -> nn.Module:
    return create_model("dsod300-vovnet27_slim", 21).network


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_costs_stay_within_the_design():
    counts = count(nano(20, "meta"), (256, 256))
    assert 0.5e9 < counts.macs < 1.0e9
    assert 1.5e6 < counts.params < 2.6e6
    assert "aten.native_batch_norm" in counts.uncounted_ops  # nothing hidden from the counter


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (64, 96), (256, 256), (32, 320), (480, 640)]
)
def test_any_multiple_of_32(height, width):
    output = nano(7, "meta").eval()(torch.empty(2, 3, height, width, device="meta"))
    points, _ = anchor_points(height, width, STRIDES)
    by_hand = height * width * (1 / 64 + 1 / 256 + 1 / 1024)
    assert len(points) == by_hand
    assert output.class_logits.shape == (2, len(points), 7)
    assert output.distances.shape == (2, len(points), 4)


def test_train_and_eval_give_the_same_structure():
    network = nano(3)
    outputs = [network.train(mode)(images(2, 64, 96)) for mode in (True, False)]
    assert [type(o).__name__ for o in outputs] == ["VoVDetOutput", "VoVDetOutput"]
    shapes = [[(t.shape, t.dtype) for t in output] for output in outputs]
    assert shapes[0] == shapes[1]
    assert not torch.equal(outputs[0].distances, outputs[1].distances)  # batch statistics
    assert all((output.distances >= 0).all() for output in outputs)


@torch.no_grad()
def test_predictions_are_in_the_order_of_the_points():
    """A level's columns are the head's map, row by row."""
    network = nano(3).eval()
    x = images(1, 64, 96)
    output, levels = network(x), network.neck(network.backbone(x))
    start = 0
    for head, level, stride in zip(network.heads, levels, STRIDES, strict=True):
        rows, columns = 64 // stride, 96 // stride
        assert level.shape[2:] == (rows, columns)
        logits, distances = head.classes(level), nn.functional.softplus(head.box(level))
        for row, column in ((0, 0), (0, columns - 1), (rows - 1, 1)):
            point = start + row * columns + column
            assert torch.equal(output.class_logits[0, point], logits[0, :, row, column])
            torch.testing.assert_close(output.distances[0, point], distances[0, :, row, column])
        start += rows * columns
    assert start == output.class_logits.shape[1]


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_scores_start_near_one_percent(training):
    torch.manual_seed(0)
    output = nano(20).train(training)(images(2, 128, 128))
    scores = output.class_logits.sigmoid()
    assert 0.005 < scores.mean() < 0.02
    assert scores.max() < 0.2
    # softplus(2) is 2.13 strides to each side.
    assert 1.9 < output.distances.mean() < 2.4


@pytest.mark.parametrize(
    ("build", "side", "left"),
    [
        (nano, 128, 0),
        # Each dense prediction has three norms before their convolutions, which stay.
        (dsod, 128, 9),
        (lambda: VoVNet(BACKBONES["ese_vovnet19b_dw"]), 96, 0),
    ],
    ids=["vovdet_nano", "dsod300-vovnet27_slim", "ese_vovnet19b_dw"],
)
@torch.no_grad()
def test_fused_norms_leave_the_outputs_equal(build, side, left, randomise_norms):
    network = build().eval()
    randomise_norms(network)
    before = network(images(2, side, side))
    assert norms(network) > 20
    fuse_norms(network)
    assert norms(network) == left
    after = network(images(2, side, side))
    for a, b in zip(after, before, strict=True):
        assert b.std() > 1e-4
        assert (a - b).abs().max() <= 1e-4 * max(1.0, b.abs().max().item())


@pytest.mark.parametrize(
    ("build", "side"),
    [(nano, 64), (dsod, 128)],
    ids=["vovdet_nano", "dsod300-vovnet27_slim"],
)
@torch.no_grad()
def test_networks_export_without_surgery(build, side, randomise_norms):
    network = build().eval()
    randomise_norms(network)
    exported = torch.export.export(network, (torch.zeros(1, 3, side, side),))
    x = images(1, side, side)
    eager, result = network(x), exported.module()(x)
    assert type(result) is type(eager)
    for a, b in zip(result, eager, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())
