import pytest
import torch
from torch import nn

from vovnet.models import create_detector
from vovnet.train import optimizers
from vovnet.train.optimizers import Muon, make_optimizers, orthogonalize
from vovnet.train.recipe import Recipe


def recipe(**values) -> Recipe:
    return Recipe("vovdet_nano", ("a",), **values)


@pytest.mark.parametrize(
    "shape", [(8, 8), (4, 30), (30, 4), (64, 576), (1, 9), (9, 1), (5, 16, 27), (2, 3, 27, 16)]
)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_become_about_one(shape, scale):
    torch.manual_seed(0)
    result = orthogonalize(scale * torch.randn(shape))
    values = torch.linalg.svdvals(result)
    assert result.shape == shape
    assert result.dtype == torch.float32
    # A square Gaussian has singular values near 0, which five steps leave small.
    low = 0.05 if shape[-1] == shape[-2] else 0.6
    assert low < values.min()
    assert values.max() < 1.3


def test_singular_vectors_stay():
    torch.manual_seed(0)
    matrix = torch.randn(12, 40)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    cosine = nn.functional.cosine_similarity(orthogonalize(matrix).flatten(), nearest.flatten(), 0)
    assert cosine > 0.98


def test_zeros_stay_zeros():
    assert torch.equal(orthogonalize(torch.zeros(3, 4, 5)), torch.zeros(3, 4, 5))


def stepped(kernels: list[torch.Tensor], *, together: bool, steps: int = 3) -> list[torch.Tensor]:
    parameters = [nn.Parameter(kernel.clone()) for kernel in kernels]
    groups = [parameters] if together else [[parameter] for parameter in parameters]
    optimizers = [Muon(group, lr=0.02, weight_decay=0.1) for group in groups]
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_alike_kernels_step_as_they_would_one_by_one():
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3), (8, 4, 3, 3), (16, 8, 1, 1), (8, 36, 1, 1), (8, 4, 3, 3)]
    kernels = [torch.randn(shape) for shape in shapes]
    kernels[1] = kernels[1].to(memory_format=torch.channels_last)
    for a, b in zip(stepped(kernels, together=True), stepped(kernels, together=False), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_the_layout_in_memory_does_not_matter():
    torch.manual_seed(0)
    kernel = torch.randn(8, 4, 3, 3)
    [plain] = stepped([kernel], together=True)
    [last] = stepped([kernel.to(memory_format=torch.channels_last)], together=True)
    assert torch.equal(plain, last)


def test_the_first_step_is_the_orthogonal_gradient_scaled_after_weight_decay():
    torch.manual_seed(0)
    start, gradient = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    parameter = nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    # After one step momentum and gradient point the same way; bf16 rounds them apart a little.
    direction = orthogonalize(gradient.flatten(1)).view_as(start)
    expected = start * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 18**0.5 * direction
    torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=6e-3)
    assert not torch.allclose(parameter.detach(), start, atol=2e-2)


def plain_muon(start: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """Muon as published (Jordan 2024), in ten lines; the step's size is arXiv 2502.16982's."""
    weight, buffer = start.clone(), torch.zeros_like(start)
    for gradient in gradients:
        buffer = 0.95 * buffer + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * buffer  # Nesterov
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        weight = weight * (1 - 0.02 * 0.1) - 0.02 * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_steps_are_those_of_the_published_muon(scale):
    """Gradients that turn, so that momentum and Nesterov's look ahead both matter; and gradients
    so small that what is added to their norm counts."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 10, generator=generator)
    gradients = [scale * torch.randn(6, 10, generator=generator) for _ in range(4)]
    parameter = nn.Parameter(start.clone())
    muon = Muon([parameter], lr=0.02, weight_decay=0.1, dtype=torch.float32)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        muon.step()
    torch.testing.assert_close(parameter.detach(), plain_muon(start, gradients), rtol=0, atol=1e-6)


def test_parameters_without_a_gradient_stay():
    moving, still = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    moving.grad = torch.randn(2, 3)
    Muon([moving, still], lr=0.1).step()
    assert torch.equal(still.detach(), torch.ones(2, 3))
    assert not torch.equal(moving.detach(), torch.ones(2, 3))


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="closure"):
        Muon([nn.Parameter(torch.ones(2, 2))], lr=0.1).step(lambda: 0.0)


@pytest.mark.parametrize("model", ["vovdet_nano", "dsod300-vovnet27_slim"])
def test_muon_takes_the_convolutions_that_a_norm_follows(model):
    network = create_detector(model, ("a", "b")).network
    muon, adamw = make_optimizers(network, recipe())
    assert isinstance(muon, Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    names = {id(p): name for name, p in network.named_parameters()}
    to_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    to_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert to_muon | to_adamw == set(names.values())
    assert not to_muon & to_adamw
    modules = dict(network.named_modules())
    for name in names.values():
        owner = modules[name.rpartition(".")[0]]
        hidden = isinstance(owner, nn.Conv2d) and owner.bias is None
        assert (name in to_muon) == hidden, name
    assert len(to_muon) > len(to_adamw) / 4 > 1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_weight_decay_falls_on_kernels_only(optimizer):
    network = create_detector("vovdet_nano", ("a", "b")).network
    optimizers = make_optimizers(network, recipe(optimizer=optimizer, weight_decay=0.3, lr=0.7))
    assert len(optimizers) == (2 if optimizer == "muon" else 1)
    groups = [group for each in optimizers for group in each.param_groups]
    counted = 0
    for group in groups:
        assert group["lr"] == 0.7
        for parameter in group["params"]:
            counted += 1
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    assert counted == len(list(network.parameters()))


def test_a_network_without_biases_or_norms_needs_one_group():
    [adamw] = make_optimizers(nn.Linear(3, 2, bias=False), recipe())
    assert [len(group["params"]) for group in adamw.param_groups] == [1]


def test_rows_and_columns_of_zeros_change_nothing(monkeypatch):
    """A GPU takes kernels of different shapes together, filled up to the next powers of two."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(12, 5, 3, 3), (16, 6, 3, 3), (9, 20, 1, 1)]
    kernels = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    found = []
    for padded in (False, True):
        if padded:
            monkeypatch.setattr(optimizers, "_padded_shape", lambda matrix: (16, 64))
        parameters = [nn.Parameter(kernel.clone()) for kernel in kernels]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        Muon(parameters, 0.1, dtype=torch.float32).step()
        found.append(parameters)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
