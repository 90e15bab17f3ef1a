"""Which measured candidate to take: limits first, then the Pareto front, then one objective.

Pure functions of what was measured. Nothing that was not measured is guessed: a candidate whose
limited or wanted quantity is unknown cannot be chosen, and a quantity that is unknown for one of
the candidates within the limits takes no part in comparing them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

Objective = Literal["latency", "accuracy", "energy", "memory"]
OBJECTIVES: tuple[Objective, ...] = ("latency", "accuracy", "energy", "memory")


@dataclass(frozen=True)
class Quantity:
    """One thing that candidates are compared by; `worse` is the word for having a greater cost."""

    unit: str
    limit: str  # the option that limits it
    worse: str
    sign: int = 1  # -1 where more is better


QUANTITIES: dict[Objective, Quantity] = {
    "latency": Quantity("ms", "--max-ms", "slower"),
    "accuracy": Quantity("mAP", "--min-map", "less accurate", sign=-1),
    "energy": Quantity("J/image", "--max-joules", "takes more energy"),
    "memory": Quantity("MB", "--max-memory", "takes more memory"),
}

# Quantity -> the greatest value allowed, for accuracy the least.
Limits = dict[Objective, float]


@dataclass(frozen=True)
class Candidate:
    """A model in one runtime and precision, and what it was found to cost.

    `values` holds what is known: milliseconds, mAP, joules per image, megabytes (10⁶). `missing`
    says of the others why not; `unusable` why the candidate cannot be taken at all.
    """

    name: str
    runtime: str
    precision: str
    values: dict[Objective, float] = field(default_factory=dict)
    missing: dict[Objective, str] = field(default_factory=dict)
    unusable: str | None = None

    @property
    def label(self) -> str:
        """What tells it from every other candidate."""
        return f"{self.name} {self.runtime} {self.precision}"

    def cost(self, quantity: Objective) -> float:
        """Its value, negated where more is better; infinite if unknown."""
        if quantity not in self.values:
            return inf
        return QUANTITIES[quantity].sign * self.values[quantity]


@dataclass(frozen=True)
class Decision:
    """The choice; the front it is on, best first; and of every other candidate why it fell.

    `ranked` are all candidates within the limits, best first, dominated ones too.
    Without a choice, `closest` is the candidate that misses the limits by least, and `misses`
    says by how much.
    """

    choice: Candidate | None
    front: tuple[Candidate, ...]
    fell: tuple[tuple[Candidate, str], ...]
    ranked: tuple[Candidate, ...] = ()
    closest: Candidate | None = None
    misses: str = ""


def decide(candidates: Sequence[Candidate], limits: Limits, objective: Objective) -> Decision:
    """Take the best candidate by `objective` of those within all limits.

    Ties go by the other quantities that all of those share, in the order of `OBJECTIVES`, and at
    last by the label: the order of the candidates does not matter.
    """
    whys = [(c, why_unfit(c, limits, objective)) for c in candidates]
    fit = [candidate for candidate, why in whys if why is None]
    axes = common_axes(fit)
    rank = {id(c): (c.cost(objective), *(c.cost(a) for a in axes), c.label) for c in fit}
    fit.sort(key=lambda c: rank[id(c)])
    front = pareto_front(fit)
    on_front = {id(candidate) for candidate in front}
    fell = [(candidate, why) for candidate, why in whys if why is not None]
    fell += [(c, _dominated(c, front, axes)) for c in fit if id(c) not in on_front]
    if front:
        return Decision(front[0], tuple(front), tuple(fell), tuple(fit))
    closest = min(candidates, key=lambda c: (_excess(c, limits), c.label), default=None)
    if closest is None or _excess(closest, limits) == inf:
        return Decision(None, (), tuple(fell))
    return Decision(None, (), tuple(fell), (), closest, _misses(closest, limits))


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats in something without losing in anything, in their order."""
    axes = common_axes(candidates)
    return [c for c in candidates if not any(dominates(other, c, axes) for other in candidates)]


def dominates(a: Candidate, b: Candidate, axes: Sequence[Objective]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better."""
    pairs = [(a.cost(axis), b.cost(axis)) for axis in axes]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def common_axes(candidates: Sequence[Candidate]) -> list[Objective]:
    """The quantities that are known of every candidate."""
    return [axis for axis in OBJECTIVES if all(axis in c.values for c in candidates)]


def why_unfit(candidate: Candidate, limits: Limits, objective: Objective) -> str | None:
    """Why a candidate may not be chosen, None if it may."""
    if candidate.unusable is not None:
        return candidate.unusable
    for quantity in (*limits, objective):
        if quantity not in candidate.values:
            reason = candidate.missing.get(quantity, "unknown")
            return f"{quantity} not measured: {reason}"
    for quantity, limit in limits.items():
        if _over(candidate, quantity, limit) > 1:
            facts = QUANTITIES[quantity]
            value = candidate.values[quantity]
            return f"{facts.worse} than {limit:g} {facts.unit}: {value:.4g}"
    return None


def loosened(limits: Limits, factor: float) -> Limits:
    """The limits, each missed by up to `factor` of itself."""
    return {
        quantity: limit * factor ** QUANTITIES[quantity].sign for quantity, limit in limits.items()
    }


def _over(candidate: Candidate, quantity: Objective, limit: float) -> float:
    """By which factor a limit is missed; 1 and less is within."""
    value = candidate.values[quantity]
    over, under = (limit, value) if QUANTITIES[quantity].sign < 0 else (value, limit)
    return over / under if under > 0 else (inf if over > 0 else 1.0)


def _excess(candidate: Candidate, limits: Limits) -> float:
    if candidate.unusable is not None or any(q not in candidate.values for q in limits):
        return inf
    return max((_over(candidate, q, limit) for q, limit in limits.items()), default=1.0)


def _misses(candidate: Candidate, limits: Limits) -> str:
    parts = []
    for quantity, limit in limits.items():
        if _over(candidate, quantity, limit) > 1:
            facts, value = QUANTITIES[quantity], candidate.values[quantity]
            parts.append(
                f"{facts.limit} {limit:g} by {abs(value - limit):.4g} {facts.unit} ({value:.4g})"
            )
    return " and ".join(parts)


def _dominated(candidate: Candidate, front: Sequence[Candidate], axes: Sequence[Objective]) -> str:
    """Which member of the front is better, the best one, and in what."""
    better = next(c for c in front if dominates(c, candidate, axes))
    words = [QUANTITIES[axis].worse for axis in axes if candidate.cost(axis) > better.cost(axis)]
    return f"dominated by {better.label}: {' and '.join(words)}"
