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


def test_a_gpu_is_waited_for(work, monkeypatch):
    """Where the host is sent ahead, a call's time ends when the device is done."""
    device = torch.device("cuda")

    def wait(awaited: torch.device) -> None:
        assert awaited == device
        work.now += 3.0

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    assert settle(work, 0.0, device) == 5.0


def test_a_gpus_calls_are_timed_between_events(work, monkeypatch):
    """Milliseconds between neighbours, read once the last has passed."""

    class Event:
        passed = -1.0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = work.now

        def synchronize(self) -> None:
            Event.passed = self.at

        def elapsed_time(self, other: "Event") -> float:
            assert other.at <= Event.passed
            return 1000.0 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert time_calls(work, 7.0, torch.device("cuda"), 2.0) == [2.0] * 4
    work.calls = 0
    # A guess of 6 s is too long: three calls fill 6 s of 20, then the rest follows from their 2 s.
    assert time_calls(work, 20.0, torch.device("cuda"), 6.0) == [2.0] * 10
    assert work.calls == 10
