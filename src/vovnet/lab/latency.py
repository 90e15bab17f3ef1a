"""Time calls of one competitor for a while, nothing clipped."""

import time
from collections.abc import Callable
from itertools import pairwise
from math import ceil

import torch

Call = Callable[[], object]
LEAST_CALLS = 3  # in a window, however slow they are


def settle(call: Call, seconds: float, device: torch.device) -> float:
    """Run for about `seconds`, at least once, and return the seconds that the last call took.

    Before every window: the caches, the threads and the clocks are still those of whoever ran
    before.
    """
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        synchronise(device)
        now = time.perf_counter()
        if now >= end:
            return now - start


def time_calls(call: Call, seconds: float, device: torch.device, guess: float) -> list[float]:
    """Seconds of every call in a window of about `seconds`, at least `LEAST_CALLS` calls.

    On a CPU by the clock around each. On CUDA between events on the stream, so that the host runs
    ahead as it does in use; the device is waited for after a number of calls that follows from
    `guess`, the seconds of one. A guess that waited for the device is too long for calls that
    follow each other: where the device was busy for less than the window, more calls follow.
    """
    samples: list[float] = []
    if device.type == "cuda":
        while (left := seconds - sum(samples)) > 0:
            samples += _between_events(call, max(LEAST_CALLS, ceil(left / guess)))
            guess = sum(samples) / len(samples)
        return samples
    end = time.perf_counter() + seconds
    while len(samples) < LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return samples


def _between_events(call: Call, calls: int) -> list[float]:
    events = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    events[-1].synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in pairwise(events)]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
