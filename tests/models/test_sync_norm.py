from functools import partial

import pytest
import torch
from torch import Tensor, nn

from vovnet.distributed import process_group, rank
from vovnet.models import create_detector
from vovnet.models.layers import fuse_norms
from vovnet.models.sync_norm import SyncBatchNorm2d, synchronize_norms
from vovnet.models.trunks import create_backbone

CHANNELS = 3
# Images of the two processes, type, constructor's options, and what is added to the input.
CASES = (
    ((2, 2), "float64", {}, 0.0),
    ((3, 1), "float64", {"momentum": None}, 0.0),
    ((1, 4), "float64", {"affine": False, "eps": 1e-3}, 0.0),
    ((3, 2), "float32", {"track_running_stats": False}, 0.0),
    ((2, 3), "float32", {}, 100.0),  # plain sums of squares would lose the variance here
)


def batches(shares: tuple[int, int], dtype: str, offset: float) -> tuple[Tensor, Tensor]:
    """Images of all processes, of different means and spreads, and gradients to send back."""
    generator = torch.Generator().manual_seed(0)
    images, gradients = torch.randn(2, sum(shares), CHANNELS, 5, 4, generator=generator)
    images = images * torch.linspace(0.5, 3.0, len(images))[:, None, None, None] + offset
    return images.to(getattr(torch, dtype)), gradients.to(getattr(torch, dtype))


def passes(norm: nn.BatchNorm2d, images: Tensor, gradients: Tensor) -> dict[str, list]:
    """Two passes in training: output, gradients and state of the norm."""
    if norm.affine:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2.0, CHANNELS))
            norm.bias.copy_(torch.linspace(-1.0, 1.0, CHANNELS))
    norm(images * 0.5)
    images = images.clone().requires_grad_()
    y = norm(images)
    y.backward(gradients)
    learned = {name: p.grad.tolist() for name, p in norm.named_parameters()}
    state = {name: value.tolist() for name, value in norm.state_dict().items()}
    return {"y": y.tolist(), "x": images.grad.tolist(), "learned": learned, "state": state}


def normalise() -> dict:
    """Every case, this process's share of it, and bf16."""
    done = []
    with process_group("cpu"):
        for shares, dtype, options, offset in CASES:
            norm = SyncBatchNorm2d(CHANNELS, **options).to(getattr(torch, dtype))
            own = [x.split(shares)[rank()] for x in batches(shares, dtype, offset)]
            done.append(passes(norm, *own))
        return {"cases": done, "bf16": normalise_halves()}


def normalise_halves() -> list:
    """bf16 images under autocast: types of what comes of them, and gaps to float32's."""
    images, gradients = (x.chunk(2)[rank()] for x in batches((2, 2), "float32", 3.0))
    halves = images.bfloat16().requires_grad_()
    norm, exact = SyncBatchNorm2d(CHANNELS), SyncBatchNorm2d(CHANNELS)
    with torch.autocast("cpu", torch.bfloat16):
        said, wanted = norm(halves), exact(halves.detach().float())
    said.backward(gradients.bfloat16())
    types = [str(t.dtype) for t in (said, halves.grad, norm.weight.grad, norm.running_var)]
    gap = (norm.running_var - exact.running_var).abs().max()
    return [types, gap.item(), (said - wanted).abs().max().item()]


@pytest.fixture(scope="session")
def normalised(in_ranks) -> list[dict]:
    """What two processes made of their shares."""
    return in_ranks(normalise)


def double(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_shares_of_a_batch_are_normalised_as_the_whole(normalised, number):
    one, two = (share["cases"][number] for share in normalised)
    shares, dtype, options, offset = CASES[number]
    whole = nn.BatchNorm2d(CHANNELS, **options).to(getattr(torch, dtype))
    wanted = passes(whole, *batches(shares, dtype, offset))
    gap = 1e-10 if dtype == "float64" else 1e-4
    near = partial(torch.testing.assert_close, rtol=gap, atol=gap)
    for key in ("y", "x"):
        near(double(one[key] + two[key]), double(wanted[key]))
    for key, value in wanted["learned"].items():
        near(double(one["learned"][key]) + double(two["learned"][key]), double(value))
    assert one["state"] == two["state"]
    assert one["state"].keys() == wanted["state"].keys()
    for key, value in wanted["state"].items():
        near(double(one["state"][key]), double(value))


def test_statistics_are_float32_under_autocast(normalised):
    for share in normalised:
        types, running_gap, gap = share["bf16"]
        assert types == ["torch.bfloat16", "torch.bfloat16", "torch.float32", "torch.float32"]
        assert running_gap < 1e-5
        assert gap < 0.02


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_the_plain_norm(training):
    images, gradients = batches((2, 2), "float32", 0.0)
    plain, ours = nn.BatchNorm2d(CHANNELS), SyncBatchNorm2d(CHANNELS)
    for norm in (plain, ours):
        norm.running_mean.fill_(0.3)
    assert passes(plain.train(training), images, gradients) == passes(
        ours.train(training), images, gradients
    )


@pytest.mark.parametrize("name", ["vovnet19_slim_dw", "timm:mobilenetv3_small_050"])
def test_a_network_keeps_its_state_and_its_outputs(name, randomise_norms):
    torch.manual_seed(0)
    before = create_backbone(name).eval()
    randomise_norms(before)
    state = {key: value.clone() for key, value in before.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = before(images)
        parameters = list(before.parameters())
        after = synchronize_norms(before)
        assert all(map(torch.equal, wanted, after(images)))
    norms = [m for m in after.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 10
    assert all(type(m) is SyncBatchNorm2d for m in norms)
    assert list(map(id, parameters)) == list(map(id, after.parameters()))
    assert after.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in after.state_dict().items())


def test_frozen_and_folded_norms_stay_so(randomise_norms):
    network = create_detector("vovdet_nano", ("a",)).network.eval()
    randomise_norms(network)
    network.backbone.requires_grad_(False)
    synchronize_norms(network)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        fuse_norms(network)
        for one, two in zip(before, network(images), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
