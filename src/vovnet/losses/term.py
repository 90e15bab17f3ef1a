"""A loss term that is not divided yet."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Term(NamedTuple):
    """`total`, summed over what trains, and `count`, how much that is: scalars, the second without
    gradient. The loss term of a batch is `total` / max(`count`, `least`).

    They are kept apart because a batch may be computed in parts and by several processes: then both
    are summed over all of it before the division. Terms that are divided alike hold the very same
    tensor `count`.
    """

    total: Tensor
    count: Tensor
    least: float = 1.0

    @property
    def mean(self) -> Tensor:
        """The term where this is the whole batch."""
        return self.total / self.count.clamp(min=self.least)


def means(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """The terms as scalars, of a batch that is whole."""
    return {name: term.mean for name, term in terms.items()}
