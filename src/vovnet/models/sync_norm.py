"""Batch normalisation over the images of all processes (torch's SyncBatchNorm refuses CPUs)."""

from typing import Any

import torch
from torch import Tensor, nn

from vovnet.distributed import sum_across, world_size


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch is that of all processes together, equal in size or not.

    In eval mode and in a single process it is `nn.BatchNorm2d`, with the same state. Statistics
    are float32 whatever the input. `act` follows the normalisation, for timm's norms hold theirs.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__(channels, eps, momentum, affine, track_running_stats)
        self.act = act or nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return self.act(super().forward(input))
        self._check_input_dim(input)
        y, *statistics = _Normalize.apply(input, self.weight, self.bias, self.eps)
        self._remember(*statistics)
        return self.act(y)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        number, means, variances = self.num_batches_tracked, self.running_mean, self.running_var
        if number is None or means is None or variances is None:  # track_running_stats=False
            return
        number.add_(1)
        # Without a momentum all batches weigh the same, as in nn.BatchNorm2d.
        share = 1 / number if self.momentum is None else self.momentum
        means.lerp_(mean, share)
        variances.lerp_(variance * count / (count - 1).clamp(min=1), share)


class _Normalize(torch.autograd.Function):
    """Keeps only the input for the way back, where autograd would keep every step's result."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        y = nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        gradient = gradients[0].to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        # What the statistics, which all share, owe to every one of the values.
        shift, slope = sum_across(own) / count
        inner = gradient - shift.view(shape) - normal * slope.view(shape)
        scale = scale if weight is None else scale * weight
        learned = (None, None) if weight is None else (own[1], own[0])
        return (inner * scale.view(shape)).to(x.dtype), *learned, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of every channel over all processes, and how many values it has.

    The squares are of distances from the mean, found first: a sum of plain squares would cancel.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    own = values.new_full((1,), x.numel() // x.shape[1])
    total = sum_across(torch.cat([values.sum((0, 2, 3)), own]))
    mean, count = total[:-1] / total[-1], total[-1]
    distances = values - mean.view(1, -1, 1, 1)
    return mean, sum_across(distances.square().sum((0, 2, 3))) / count, count


def synchronize_norms(network: nn.Module) -> nn.Module:
    """Put a `SyncBatchNorm2d` in the place of every `nn.BatchNorm2d` of the network, in place.

    Parameters, statistics and their names stay, so state dicts fit both. Returns the network.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d):
                setattr(module, name, _synchronized(child))
    return network


def _synchronized(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    with torch.device("meta"):  # its own tensors are replaced at once
        new = SyncBatchNorm2d(
            norm.num_features,
            norm.eps,
            norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
            act=getattr(norm, "act", None),
        )
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new.train(norm.training)
