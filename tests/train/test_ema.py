import copy

import pytest
import torch
from torch import nn

from vovnet.train.ema import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def move(target: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for value in target.state_dict().values():
            value.add_(amount if value.is_floating_point() else 1)


def test_the_average_of_constant_weights_is_those_weights():
    source = network()
    average = WeightAverage(source, 0.99)
    for _ in range(20):
        average.update(source)
    for key, value in average.network.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_decay_warms_up(decay):
    source = network()
    average = WeightAverage(source, decay)
    expected = source[0].weight.double().clone()
    for n in range(1, 30):
        move(source, 0.1)
        average.update(source)
        now = min(decay, (1 + n) / (10 + n))
        expected = now * expected + (1 - now) * source[0].weight.double()
        torch.testing.assert_close(average.network[0].weight.double(), expected)
    assert average.updates == 29


def test_statistics_are_averaged_and_counters_copied():
    source = network()
    average = WeightAverage(source, 0.0)
    before = copy.deepcopy(average.network.state_dict())
    move(source, 1.0)
    average.decay = 0.5
    average.updates = 1000
    average.update(source)
    after = average.network.state_dict()
    torch.testing.assert_close(after["1.running_mean"], before["1.running_mean"] + 0.5)
    assert after["1.num_batches_tracked"].item() == 1
    assert after["1.num_batches_tracked"].dtype == torch.int64


def test_the_average_is_a_copy_apart():
    source = network().to(memory_format=torch.channels_last)
    average = WeightAverage(source, 0.9)
    kept = average.network[0].weight.clone()
    move(source, 5.0)
    assert torch.equal(average.network[0].weight, kept)
    average.update(source)
    assert not torch.equal(average.network[0].weight, kept)
    assert not average.network.training
    assert source.training
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(p.requires_grad for p in source.parameters())
    assert average.network[0].weight.is_contiguous(memory_format=torch.channels_last)
