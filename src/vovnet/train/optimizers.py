"""Optimisers: torch's SGD and AdamW, and Muon (Jordan 2024; arXiv 2502.16982) for kernels.

Muon makes the momentum's step on every kernel orthogonal. torch.optim.Muon takes matrices only;
here kernels are taken as out × (in·k·k) matrices.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from vovnet.errors import VovnetError
from vovnet.train.recipe import Recipe

# Quintic Newton–Schulz coefficients of the reference implementation: fast, singular values end
# in about 0.7..1.2, which is orthogonal enough.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.bfloat16, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices of ...×M×N ones, roughly, by Newton–Schulz steps in
    `dtype`; bf16 is precise enough for directions."""
    x = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).reshape(matrices.shape).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for parameters of two or more dimensions.

    The step has the root-mean-square that AdamW's has (0.2·sqrt(larger side), arXiv 2502.16982
    equation 4), so learning rates and weight decay carry over.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    # pyrefly: ignore[bad-override]  (torch types step by overloads; without closures there is one)
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update of every parameter that has a gradient; a closure is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict) -> None:
        directions = [d.flatten(1) for d in self._directions(parameters, group["momentum"])]
        # Kernels of about one shape are orthogonalised together: many small products are slow.
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, direction in enumerate(directions):
            alike[_padded_shape(direction)].append(number)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for shape, numbers in alike.items():
            wanted = [directions[number] for number in numbers]
            steps = orthogonalize(_stacked(wanted, shape), self.dtype)
            for number, step in zip(numbers, steps, strict=True):
                rows, columns = directions[number].shape
                parameter, step = parameters[number], step[:rows, :columns]
                scale = -group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                parameter.add_(step.reshape(parameter.shape), alpha=scale)

    def _directions(self, parameters: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """The gradients with Nesterov momentum."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        moments = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(moments, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, moments, momentum)


def _padded_shape(matrix: Tensor) -> tuple[int, ...]:
    """A CPU works on matrices as they are. A GPU takes longer to start than to multiply: its sides
    are rounded up to powers of two, so that more matrices are alike. Rows and columns of zeros
    stay zeros, and change nothing else."""
    if not matrix.is_cuda:
        return tuple(matrix.shape)
    return tuple(2 ** (side - 1).bit_length() for side in matrix.shape)


def _stacked(matrices: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    if all(matrix.shape == shape for matrix in matrices):
        return torch.stack(matrices)
    stack = matrices[0].new_zeros(len(matrices), *shape)
    for place, matrix in zip(stack, matrices, strict=True):
        place[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stack


def make_optimizers(network: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """The recipe's optimisers of what is not frozen. Weight decay falls on kernels, not on biases,
    norms and scales.

    "muon" takes the convolutions without a bias, which a normalisation follows: their scale does
    not matter, only their direction. AdamW takes the rest, at the same learning rate.
    """
    rate = recipe.lr or 0.0
    learning = [p for p in network.parameters() if p.requires_grad]
    if not learning:
        raise VovnetError("everything is frozen, and nothing left to learn; freeze less")
    hidden: list[Tensor] = []
    if recipe.optimizer == "muon":
        convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
        hidden = [m.weight for m in convolutions if m.bias is None and m.weight.requires_grad]
    taken = set(map(id, hidden))
    kernels = [p for p in learning if p.ndim > 1 and id(p) not in taken]
    others = [p for p in learning if p.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        options = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        return (torch.optim.SGD(groups, lr=rate, **options),)
    adamw = torch.optim.AdamW(groups, lr=rate, fused=True)
    if not hidden:
        return (adamw,)
    fast = torch.float32 if recipe.amp == "off" else torch.bfloat16
    return Muon(hidden, rate, weight_decay=recipe.weight_decay, dtype=fast), adamw
