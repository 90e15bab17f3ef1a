"""Windows on a clock that only calls move on."""

from types import SimpleNamespace

import pytest
import torch

from vovnet.lab import latency
from vovnet.lab.latency import settle, time_calls

CPU = torch.device("cpu")


class Work:
    """A call of two seconds, and the clock that it moves on."""

    def __init__(self) -> None:
        self.now, self.calls = 100.0, 0

    def __call__(self) -> None:
        self.now += 2.0
        self.calls += 1


@pytest.fixture
def work(monkeypatch) -> Work:
    work = Work()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: work.now))
    return work


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 3), (6.0, 3), (6.5, 4), (10.0, 5)])
def test_a_window_holds_the_seconds_of_every_call(work, seconds, calls):
    """Three at least; none begins once the window is over."""
    assert time_calls(work, seconds, CPU, 1e9) == [2.0] * calls
    assert work.calls == calls


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1), (2.0, 1), (2.5, 2), (6.0, 3)])
def test_settling_tells_the_seconds_of_the_last_call(work, seconds, calls):
    assert settle(work, seconds, CPU) == 2.0
    assert work.calls == calls
