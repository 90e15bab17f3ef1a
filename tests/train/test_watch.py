"""When a rising loss ends a run."""

import pytest

from vovnet.train.watch import DivergedError, LossWatch


def watched(*losses: float) -> LossWatch:
    watch = LossWatch()
    for loss in losses:
        watch.add(loss)
    return watch


def test_the_loss_is_smoothed_over_twenty_steps():
    """The first counts whole, every later one a twentieth."""
    watch = watched(8.0, 4.0, 2.0)
    assert watch.smooth == pytest.approx((8.0 * 0.95 + 4.0 * 0.05) * 0.95 + 2.0 * 0.05)
    assert (watch.steps, watch.first, watch.least) == (3, float("inf"), float("inf"))
    settled = watched(*[5.0] * 20)
    assert (settled.first, settled.least) == pytest.approx((5.0, 5.0))


def test_a_single_loss_out_of_hand_ends_no_run_and_many_do():
    """After a loss of 1, one of 150 lifts the mean to 8.45: below ten times the least."""
    assert watched(*[1.0] * 30, 150.0).smooth == pytest.approx(8.45)
    with pytest.raises(DivergedError, match=r"rose from 1 to 10\.9"):
        watched(*[1.0] * 30, 199.0)
    with pytest.raises(DivergedError):
        watched(*[1.0] * 30, *[30.0] * 10)


def test_ten_times_the_least_is_no_divergence_below_twice_the_beginning():
    falling = [100.0] * 20 + [1.0] * 200  # the mean comes down to 1
    assert watched(*falling, *[100.0] * 15).smooth > 40
    with pytest.raises(DivergedError):
        watched(*falling, *[300.0] * 40)
    assert watched(*[1.0] * 20, 20.0).smooth < 2  # 1.95: below twice its beginning


def test_a_loss_of_nothing_has_not_risen():
    """Ten times its least is what it is."""
    assert watched(*[0.0] * 25).smooth == 0
