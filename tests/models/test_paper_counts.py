"""Parameters and operations of the paper's tables 2 to 4 and its CIFAR study, to the digit."""

import pytest
from torch import nn

from vovnet.lab import count, count_models
from vovnet.models import create_model

TABLE_4 = [
    ("vovnet39", 56.28, 32.6),
    ("vovnet57", 70.32, 36.45),
    ("resnet50", 63.46, 25.43),
    ("resnet101", 82.45, 33.02),
    ("densenet201", 56.13, 24.65),
    ("densenet161", 66.76, 32.74),
]


@pytest.mark.parametrize(("backbone", "params", "macs"), TABLE_4)
def test_table_4_refinedet320(backbone, params, macs):
    row = count_models([f"refinedet320-{backbone}"], 320, num_classes=81)[0]
    assert round(row["params"] / 1e6, 2) == params
    assert row["macs"] / 1e9 == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("dsod300-densenet67", 5.83, 5.298),  # table 2
        ("dsod300-vovnet27_slim", 5.97, 5.66),
        ("dsod300-vovnet27_slim_bottleneck", 4.87, 4.64),  # table 3
        ("dsod300_plain-vovnet27_slim", 6.28, 5.67),
    ],
)
def test_dsod300(name, params, macs):
    row = count_models([name], 300, num_classes=21)[0]
    assert row["params"] / 1e6 == pytest.approx(params, abs=0.005)
    assert row["macs"] / 1e9 == pytest.approx(macs, abs=0.005)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [  # table 2 prints 5.7 M and 1.1 G, 5.4 M and 1.2 G: cut off after the digit, as for VoVNet
        ("ssd300-mobilenet_v1", 5_796_089, 1_148_479_168),
        ("pelee304-peleenet", 5_425_892, 1_204_968_960),
    ],
)
def test_light_single_shot_detectors(name, params, macs):
    row = count_models([name], num_classes=21)[0]
    assert (row["params"], row["macs"]) == (params, macs)


def test_full_dsod300_has_its_published_size():
    row = count_models(["dsod300-densenet67_k48"], 300, num_classes=21)[0]
    assert row["params"] / 1e6 == pytest.approx(14.8, abs=0.1)


@pytest.mark.parametrize(
    ("name", "kernels", "macs", "memory_access"),
    [
        ("densenet40_k12", 1.002, 264.8, 3.680),
        ("osa_5x43", 1.164, 263.7, 2.587),
        ("osa_12x20", 1.118, 238.9, 2.735),
    ],
)
def test_cifar_networks(name, kernels, macs, memory_access):
    model = create_model(name)
    counts = count(model, (32, 32))
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert weights / 1e6 == pytest.approx(kernels, abs=0.0006)
    assert counts.macs / 1e6 == pytest.approx(macs, abs=0.06)
    assert counts.memory_access / 1e6 == pytest.approx(memory_access, abs=0.0006)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet50", 25.56, 4.09),
        ("resnet101", 44.55, 7.80),
        ("densenet121", 7.98, 2.83),
        ("densenet201", 20.01, 4.29),
        ("densenet161", 28.68, 7.73),
        ("mobilenet_v1", 4.23, 0.569),
        ("mobilenet_v2", 3.50, 0.30),
        ("shufflenet_v2_x1_0", 2.28, 0.145),
        ("squeezenet1_0", 1.25, 0.82),
        ("alexnet", 61.10, 0.71),
        ("peleenet", 2.802, 0.508),
    ],
)
def test_comparison_backbones(name, params, macs):
    row = count_models([name], 224)[0]
    assert row["params"] / 1e6 == pytest.approx(params, abs=0.006)
    assert row["macs"] / 1e9 == pytest.approx(macs, abs=0.006)
