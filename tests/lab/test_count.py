from dataclasses import asdict
from math import sqrt

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from vovnet.lab import count

H, W = 12, 20
HW = H * W


@pytest.mark.parametrize(
    ("layer", "macs", "access", "activations", "kind"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), HW * 9 * 24, HW * 11 + 9 * 24, HW * 8, "conv 3×3"),
        (nn.Conv2d(3, 8, 1), HW * 24, HW * 11 + 24, HW * 8, "conv 1×1"),
        (
            nn.Conv2d(3, 3, 3, padding=1, groups=3),
            HW * 27,
            HW * 6 + 27,
            HW * 3,
            "depthwise conv 3×3",
        ),
        (
            nn.Conv2d(3, 6, (3, 5), padding=(1, 2), groups=3),
            HW * 15 * 6,
            HW * 9 + 15 * 6,
            HW * 6,
            "depthwise conv 3×5",
        ),
        (
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            HW // 4 * 9 * 24,
            HW * 3 + HW // 4 * 8 + 9 * 24,
            HW // 4 * 8,
            "conv 3×3",
        ),
        (
            nn.ConvTranspose2d(3, 8, 2, stride=2),
            HW * 4 * 24,
            HW * 3 + 4 * HW * 8 + 4 * 24,
            4 * HW * 8,
            "transposed conv 2×2",
        ),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_one_convolution(layer, macs, access, activations, kind, bias):
    if not bias:
        layer.bias = None
    weights = layer.weight.numel()
    for batch in (1, 3):
        counts = count(layer, (H, W), batch=batch)
        assert counts.params == weights + (layer.bias.numel() if bias else 0)
        assert counts.macs == batch * macs
        assert counts.flops == 2 * counts.macs
        assert counts.memory_access == batch * (access - weights) + weights
        assert counts.activations == batch * activations
        biases = layer.bias.numel() if bias else 0
        assert counts.bytes_moved == 4 * (counts.memory_access + biases)
        assert counts.uncounted_ops == ()
        (row,) = counts.layers
        assert (row.kind, row.macs, row.memory_access) == (
            kind,
            counts.macs,
            counts.memory_access,
        )
        assert row.ratio == pytest.approx(row.memory_access / row.lower_bound)
    assert count(layer, (H, W), bytes_per_element=2).bytes_moved == 2 * (access + biases)


def test_grouped_convolution():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1, groups=2))
    row = count(model, (H, W)).layers[1]
    assert (row.name, row.kind) == ("1", "grouped conv 3×3")
    assert row.macs == HW * 9 * 8 * 4 // 2
    assert row.memory_access == HW * 12 + 9 * 8 * 4 // 2


def test_lower_bound_is_reached_by_equal_channels():
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1))
    first, second = count(model, (H, W)).layers
    assert second.ratio == pytest.approx(1)
    assert first.lower_bound == pytest.approx(2 * sqrt(HW * first.macs) + first.macs / HW)
    assert first.ratio > 1


class Head(nn.Module):
    """One convolution on two maps, as detector heads share theirs, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        small = self.shared(x[:, :, ::2, ::2])
        return self.fc((self.shared(x) + 1).mean((2, 3))), small


def test_shared_module_and_linear():
    counts = count(Head(), (H, W))
    convolutions = 81 * (HW + HW // 4)
    assert counts.macs == convolutions + 15
    assert counts.params == 81 + 15 + 5
    assert counts.activations == 3 * (HW + HW // 4) + 5
    (row,) = counts.layers
    assert (row.name, row.macs) == ("shared", convolutions)
    assert counts.memory_access == row.memory_access == 6 * (HW + HW // 4) + 2 * 81
    assert counts.uncounted_ops == ("aten.add", "aten.mean")


def test_bytes_of_views_moves_and_integers():
    class Moves(nn.Module):
        def forward(self, x):
            y = torch.cat((x, x), 1)[:, 1:].reshape(1, -1).relu_()
            return y.argmax(1)

    counts = count(Moves(), (H, W))
    # In a batch of one the slice is contiguous, so the reshape is a view too.
    cat, relu, argmax = 2 * 6 * HW * 4, 2 * 5 * HW * 4, 5 * HW * 4 + 8
    assert counts.bytes_moved == cat + relu + argmax
    assert counts.uncounted_ops == ("aten.argmax", "aten.relu")


class Deformable(nn.Module):
    def __init__(self, with_mask):
        super().__init__()
        self.conv = DeformConv2d(3, 8, 3, padding=1)
        self.with_mask = with_mask

    def forward(self, x):
        offset = x.new_zeros(x.shape[0], 18, *x.shape[2:])
        return self.conv(x, offset, offset[:, :9] if self.with_mask else None)


@pytest.mark.parametrize("with_mask", [True, False])
def test_deformable_convolution_is_counted(with_mask):
    counts = count(Deformable(with_mask), (H, W), batch=2)
    assert counts.macs == 2 * HW * 9 * 24
    assert counts.memory_access == 2 * HW * (3 + 8 + 18 + 9 * with_mask) + 9 * 24
    assert counts.layers[0].kind == "deformable conv 3×3"
    assert counts.uncounted_ops == ()


@pytest.mark.parametrize(
    ("name", "params", "gmacs", "access", "activations"),
    [
        ("resnet50", 25_557_032, 4.089, 45.2, 11.11),
        ("densenet121", 7_978_856, 2.834, 28.7, 6.90),
        ("mobilenet_v2", 3_504_872, 0.301, 15.6, 6.68),
    ],
)
def test_known_networks(name, params, gmacs, access, activations):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    counts = count(model, (224, 224))
    assert counts.params == params
    assert counts.macs / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert counts.memory_access / 1e6 == pytest.approx(access, abs=0.05)
    assert counts.activations / 1e6 == pytest.approx(activations, abs=0.01)
    assert "aten.native_batch_norm" in counts.uncounted_ops
    assert sum(row.memory_access for row in counts.layers) == counts.memory_access
    assert all(row.ratio >= 1 for row in counts.layers if "depthwise" not in row.kind)


def test_equals_torch_on_real_tensors_and_leaves_the_model_alone():
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=7).train()
    model.fc.eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    counts = count(model, (64, 96), batch=2)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model.eval()(torch.zeros(2, 3, 64, 96))
    assert counts.flops == flops.get_total_flops()
    with torch.inference_mode():
        assert count(model, (64, 96), batch=2) == counts


def test_matrix_products_of_a_transformer_are_counted():
    with torch.device("meta"):
        model = torchvision.models.vit_b_16()
    counts = count(model, (224, 224))
    # torchvision's 17.564 G, which has the products of attention too.
    assert counts.macs / 1e9 == pytest.approx(17.56, abs=0.02)
    assert [row.kind for row in counts.layers] == ["conv 16×16"]


def test_dtype_of_the_model_does_not_matter():
    model = torchvision.models.squeezenet1_1()
    counts = count(model, (64, 64))
    assert count(model.bfloat16(), (64, 64)) == counts
    assert asdict(counts)["layers"][0]["name"] == "features.0"
