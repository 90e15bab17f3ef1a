from itertools import pairwise

import pytest

from vovnet.train.schedule import Length, learning_rate

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
    assert length.total(0, 0.0) == length.total(50, 1e6) == 200
    assert [length.share(step, 3.0) for step in (0, 50, 200, 300)] == [0.0, 0.25, 1.0, 1.0]


def test_a_run_by_the_clock_promises_what_its_pace_does():
    length = Length(seconds=60.0)
    assert length.total(0, 0.0) > 10**6
    assert length.total(10, 6.0) == 100
    assert length.total(10, 120.0) == 10
    assert [length.share(7, seconds) for seconds in (0.0, 15.0, 60.0, 61.0)] == [0, 0.25, 1, 1]
