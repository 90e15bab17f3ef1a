"""The loss of a step, over all the parts that it is computed in and all processes."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vovnet.distributed import sum_across, sum_gradients_across, world_size
from vovnet.losses import Term
from vovnet.train.watch import DivergedError


class StepLoss:
    """Sums up the loss terms of a step and their gradient, as if computed at once.

    A term is its sum over the whole step divided by its count over the whole step (`Term`), which
    is only known after the last part. So the gradient of the parts so far is kept as divided by the
    count so far, and shrunk as that grows. Terms that are divided by other counts shrink otherwise:
    their gradients are kept apart, and take a pass back of their own through every part. What is
    kept does not grow with the parts.
    """

    def __init__(
        self, parameters: Iterable[Tensor], scaler: torch.amp.GradScaler, parts: int
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.scaler = scaler
        self.parts = parts
        self._totals: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._least: dict[str, float] = {}
        self._gradients: list[Sequence[Tensor | None]] = []  # by divisor, unless there is one part

    @property
    def terms(self) -> dict[str, float]:
        """The loss terms of the parts and processes so far."""
        return {name: total / self._divisor(name) for name, total in self._totals.items()}

    def add(self, terms: dict[str, Term]) -> None:
        """Take a part's terms in, and go back through it.

        A single part leaves its gradients to be averaged over the processes; of several each
        process keeps its own, until `finish`. Raises `DivergedError`.
        """
        before = {name: self._divisor(name) for name in self._totals}
        self._count(terms)
        if self.parts == 1:
            # A mean over processes is to become a sum.
            self._back([*terms], terms, world_size())
            return
        groups = _divided_alike(terms)
        for number, names in enumerate(groups):
            grown = before[names[0]] / self._divisor(names[0]) if before else 1.0
            self._restore(number, grown)
            self._back(names, terms, 1.0, again=number < len(groups) - 1)
            self._gradients[number] = [p.grad for p in self.parameters]

    def finish(self) -> None:
        """Leave the whole step's gradient in the parameters, the same in every process."""
        if self.parts == 1:
            return
        for parameter, *gradients in zip(self.parameters, *self._gradients, strict=True):
            there = [gradient for gradient in gradients if gradient is not None]
            parameter.grad = sum(there[1:], there[0]) if there else None
        sum_gradients_across(self.parameters)

    def _divisor(self, name: str) -> float:
        return max(self._counts[name], self._least[name])

    def _count(self, terms: dict[str, Term]) -> None:
        own = [term.total.detach().float() for term in terms.values()]
        own += [term.count.float() for term in terms.values()]
        numbers = sum_across(torch.stack(own)).tolist()
        for (name, term), total, count in zip(
            terms.items(), numbers[: len(terms)], numbers[len(terms) :], strict=True
        ):
            if not math.isfinite(total):
                raise DivergedError(f"loss term {name!r} became {total}")
            self._totals[name] = self._totals.get(name, 0.0) + total
            self._counts[name] = self._counts.get(name, 0.0) + count
            self._least[name] = term.least

    def _restore(self, group: int, share: float) -> None:
        """Put that share of a group's gradient so far into the parameters."""
        if group == len(self._gradients):
            self._gradients.append([None] * len(self.parameters))
        kept = self._gradients[group]
        for parameter, gradient in zip(self.parameters, kept, strict=True):
            parameter.grad = gradient
        there = [gradient for gradient in kept if gradient is not None]
        if there:
            torch._foreach_mul_(there, share)

    def _back(
        self, names: Sequence[str], terms: dict[str, Term], factor: float, again: bool = False
    ) -> None:
        loss = torch.stack([terms[name].total / self._divisor(name) for name in names]).sum()
        if loss.requires_grad:  # of a frozen head's term nothing does
            self.scaler.scale(loss * factor).backward(retain_graph=again)


def _divided_alike(terms: dict[str, Term]) -> list[list[str]]:
    """The names of the terms, together where they hold the same count."""
    groups: dict[int, list[str]] = {}
    for name, term in terms.items():
        groups.setdefault(id(term.count), []).append(name)
    return list(groups.values())
