from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovnet.train.schedule import (
    Length,
    half_cosine,
    learning_rate,
    rate_by_clock,
    warmed_by_clock,
)

PEAK, FINAL = 0.1, 0.01


def curve(total: int, warmup: int, final: float = FINAL) -> list[float]:
    options = {"peak": PEAK, "warmup": warmup, "final": final}
    return [learning_rate(step, total, **options) for step in range(total)]


def test_warmup_rises_evenly_to_the_peak():
    rates = curve(1000, 50)
    assert rates[:50] == pytest.approx([PEAK * (step + 1) / 50 for step in range(50)])
    assert rates[49] == rates[50] == PEAK == max(rates)


def test_then_half_a_cosine_down_to_the_final_rate():
    rates = curve(1000, 50)
    after = rates[50:]
    assert all(a > b for a, b in pairwise(after))
    assert rates[525] == pytest.approx(PEAK * (1 + FINAL) / 2)  # half of the way, half of the drop
    assert learning_rate(1000, 1000, peak=PEAK, warmup=50, final=FINAL) == pytest.approx(
        PEAK * FINAL
    )


def test_a_longer_run_than_planned_stays_at_the_final_rate():
    assert learning_rate(5000, 1000, peak=PEAK, warmup=50, final=FINAL) == pytest.approx(
        PEAK * FINAL
    )


def test_warmup_is_at_most_a_tenth_of_the_run():
    assert curve(100, 10_000) == curve(100, 10)
    assert curve(100, 10_000) != curve(100, 9)


@pytest.mark.parametrize("total", [1, 2, 9])
def test_a_run_of_few_steps_starts_at_the_peak(total):
    rates = curve(total, 200)
    assert rates[0] == PEAK
    assert all(0 < rate <= PEAK for rate in rates)


def test_constant_when_the_final_share_is_one():
    assert curve(20, 0, final=1.0) == [PEAK] * 20


def test_a_step_down_at_every_milestone():
    rates = [
        learning_rate(step, 100, peak=PEAK, warmup=10, milestones=[0.5, 0.7]) for step in range(100)
    ]
    assert rates[10:50] == [PEAK] * 40
    assert rates[50:70] == pytest.approx([PEAK / 10] * 20)
    assert rates[70:] == pytest.approx([PEAK / 100] * 30)


def test_a_run_of_so_many_steps():
    length = Length(steps=200)
    assert [length.share(step, 3.0) for step in (0, 50, 200, 300)] == [0.0, 0.25, 1.0, 1.0]


def test_a_run_by_the_clock():
    length = Length(seconds=60.0)
    assert [length.share(7, seconds) for seconds in (0.0, 15.0, 60.0, 61.0)] == [0, 0.25, 1, 1]


def clocked(seconds: list[float], minutes: float, warmup: int = 200) -> list[float]:
    """The rates of steps that take so long."""
    length, rates, warmed, gone = Length(seconds=60 * minutes), [], 0.0, 0.0
    for step, took in enumerate(seconds):
        share = length.share(step, gone)
        warmed = warmed_by_clock(warmed, step, share, warmup)
        rates.append(rate_by_clock(share, warmed, peak=PEAK, final=FINAL))
        gone += took
    return rates


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60),
    st.floats(0.01, 100),
    st.integers(0, 500),
)
def test_no_step_by_the_clock_adds_more_than_a_tenth_of_the_peak(seconds, minutes, warmup):
    rates = clocked(seconds, minutes, warmup)
    assert all(0 < rate <= PEAK for rate in rates)
    if warmup:
        assert all(b - a <= PEAK / 10 + 1e-12 for a, b in pairwise([0.0, *rates]))


def test_a_warm_up_by_the_clock_takes_a_tenth_of_the_time():
    rates = clocked([1.0] * 120, minutes=2)  # 12 steps of 120
    assert rates[:12] == pytest.approx(
        [PEAK * max(i / 12, 1 / 200) * half_cosine(i / 120, FINAL) for i in range(12)]
    )
    assert max(rates) == rates[12]
    assert all(a > b for a, b in pairwise(rates[12:]))
    fast = clocked([1e-3] * 400, minutes=2)  # 200 steps are less
    assert fast[:200] == pytest.approx([PEAK * (i + 1) / 200 for i in range(200)], rel=1e-4)
    late = clocked([60.0, *[1.0] * 59], minutes=2)  # the first waits for a compiler
    half = half_cosine(0.5, FINAL)
    assert late[:2] == pytest.approx([PEAK / 200, PEAK * half * (1 / 200 + 1 / 10)])


def test_milestones_by_the_clock():
    steps = [rate_by_clock(share, 1.0, peak=PEAK, milestones=[0.5]) for share in (0.4, 0.5, 0.9)]
    assert steps == pytest.approx([PEAK, PEAK / 10, PEAK / 10])
