"""The decision of `vovnet pick`: a pure function of a table, whatever the table holds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovnet.lab.decide import (
    OBJECTIVES,
    QUANTITIES,
    Candidate,
    common_axes,
    decide,
    dominates,
    loosened,
    pareto_front,
    why_unfit,
)

# Few different values, so that ties and domination are common.
costs = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0])
values = st.dictionaries(st.sampled_from(OBJECTIVES), costs)
whys = st.none() | st.just("not measured: it broke")


@st.composite
def tables(draw):
    entries = draw(st.lists(st.tuples(values, whys), max_size=12))
    return [Candidate(f"n{i}", "eager", "fp32", v, {}, why) for i, (v, why) in enumerate(entries)]


limits = st.dictionaries(st.sampled_from(OBJECTIVES), costs, max_size=3)
objectives = st.sampled_from(OBJECTIVES)


@given(tables(), limits, objectives)
def test_the_choice_is_the_best_of_its_own_table(table, limits, objective):
    decision = decide(table, limits, objective)
    fit = [c for c in table if why_unfit(c, limits, objective) is None]
    assert (decision.choice is None) == (not fit)
    if decision.choice is not None:
        assert decision.choice.cost(objective) == min(c.cost(objective) for c in fit)
        assert decision.choice is decision.front[0]


@given(tables(), limits, objectives)
def test_the_front_is_not_dominated_and_the_rest_is_told(table, limits, objective):
    decision = decide(table, limits, objective)
    fit = [c for c in table if why_unfit(c, limits, objective) is None]
    axes = common_axes(fit)
    for member in decision.front:
        assert not any(dominates(other, member, axes) for other in fit)
    told = [candidate for candidate, _ in decision.fell]
    assert sorted(c.name for c in (*decision.front, *told)) == sorted(c.name for c in table)
    for candidate, why in decision.fell:
        if candidate in fit:
            assert why.startswith("dominated by ")
            assert any(dominates(member, candidate, axes) for member in decision.front)


@given(tables(), limits, objectives, st.randoms())
def test_the_order_does_not_matter(table, limits, objective, rng: random.Random):
    shuffled = rng.sample(table, len(table))
    first, second = (decide(t, limits, objective) for t in (table, shuffled))
    assert first.choice == second.choice
    assert first.front == second.front
    assert first.closest == second.closest
    assert sorted(map(str, first.fell)) == sorted(map(str, second.fell))


@given(tables(), limits, objectives)
def test_looser_limits_lose_no_candidate(table, limits, objective):
    loose = loosened(limits, 1.5)
    for candidate in table:
        if why_unfit(candidate, limits, objective) is None:
            assert why_unfit(candidate, loose, objective) is None


@given(tables())
def test_pareto_front(table):
    front = pareto_front(table)
    axes = common_axes(table)
    assert bool(front) == bool(table)
    for candidate in table:
        beaten = any(dominates(other, candidate, axes) for other in table)
        assert (candidate in front) != beaten


def candidate(name: str, why: str | None = None, **costs: float) -> Candidate:
    return Candidate(name, "ncnn", "bf16", dict(costs), {"energy": "no counter"}, why)


def test_every_reason():
    table = [
        candidate("best", latency=20.0, accuracy=0.4, memory=100.0),
        candidate("slow", latency=312.0, accuracy=0.9, memory=100.0),
        candidate("weak", latency=5.0, accuracy=0.1, memory=100.0),
        candidate("beaten", latency=30.0, accuracy=0.3, memory=200.0),
        candidate("large", latency=25.0, accuracy=0.5, memory=900.0),
        candidate("wrong", "wrong output: relative error 0.9", latency=1.0, accuracy=0.9),
        candidate("unknown", latency=1.0, memory=1.0),
    ]
    limits = {"latency": 200.0, "accuracy": 0.2, "memory": 500.0}
    decision = decide(table, limits, "latency")
    assert decision.choice == table[0]
    assert {c.name: why for c, why in decision.fell} == {
        "slow": "slower than 200 ms: 312",
        "weak": "less accurate than 0.2 mAP: 0.1",
        "beaten": ("dominated by best ncnn bf16: slower and less accurate and takes more memory"),
        "large": "takes more memory than 500 MB: 900",
        "wrong": "wrong output: relative error 0.9",
        "unknown": "accuracy not measured: unknown",
    }


def test_what_was_not_measured_cannot_win():
    decision = decide([candidate("a", latency=1.0)], {"energy": 5.0}, "latency")
    assert decision.choice is None
    assert decision.fell[0][1] == "energy not measured: no counter"
    assert decision.closest is None  # nobody knows by how much it misses


def test_the_closest_and_by_how_much():
    table = [
        candidate("near", latency=32.0, accuracy=0.39),
        candidate("fast", latency=10.0, accuracy=0.1),
        candidate("broken", "not measured: it broke"),
    ]
    decision = decide(table, {"latency": 20.0, "accuracy": 0.4}, "latency")
    assert decision.choice is None
    assert decision.closest == table[0]
    assert decision.misses == "--max-ms 20 by 12 ms (32) and --min-map 0.4 by 0.01 mAP (0.39)"


def test_objectives():
    table = [
        candidate("fast", latency=10.0, accuracy=0.2, memory=300.0),
        candidate("good", latency=90.0, accuracy=0.6, memory=400.0),
        candidate("also good", latency=80.0, accuracy=0.6, memory=500.0),
        candidate("small", latency=95.0, accuracy=0.1, memory=100.0),
    ]
    chosen = {o: decide(table, {}, o).choice for o in ("latency", "accuracy", "memory")}
    assert {objective: c and c.name for objective, c in chosen.items()} == {
        "latency": "fast",
        "accuracy": "also good",  # the tie goes to the faster one
        "memory": "small",
    }


@pytest.mark.parametrize("quantity", OBJECTIVES)
def test_a_limit_is_met_by_its_own_value(quantity):
    table = [candidate("a", **{quantity: 7.0})]
    assert decide(table, {quantity: 7.0}, quantity).choice == table[0]
    assert (
        decide(table, {quantity: 7.0 - 1e-6 * QUANTITIES[quantity].sign}, quantity).choice is None
    )
