"""Energy per image of a simulated GPU and meter, against what was analytically used."""

from types import SimpleNamespace

import pytest
import torch

from vovnet.lab import latency
from vovnet.lab.competitor import Competitor, Samples
from vovnet.lab.energy import Energy
from vovnet.lab.measurement import measured
from vovnet.lab.results import Machine, _energy

IDLE, BUSY = 100.0, 300.0  # watts
CALL, HOST = 0.002, 0.010  # seconds of a call on the device; as the host sees one that it waits for
BATCH = 4


class Device:
    """A GPU whose calls take `CALL` each, and its meter, on one clock."""

    method, least_seconds = "simulated", 5.0

    def __init__(self) -> None:
        self.now = self.joules = 0.0

    def between_events(self, call, calls: int) -> list[float]:
        for _ in range(calls):
            call()
        self.now += calls * CALL
        self.joules += calls * CALL * BUSY
        return [CALL] * calls

    def begin(self) -> None:
        self.before = self.now, self.joules

    def end(self) -> Energy:
        seconds, joules = self.now - self.before[0], self.joules - self.before[1]
        return Energy(joules, joules, seconds)


def competitor(device: Device) -> SimpleNamespace:
    calls = []
    return SimpleNamespace(
        runner=SimpleNamespace(device=torch.device("cuda")),
        job=SimpleNamespace(batch=BATCH),
        target=SimpleNamespace(two_stages=False),
        samples=Samples(),
        end_to_end=None,
        calls=calls,
        _call=lambda: calls.append(None),
    )


def machine(**fields) -> Machine:
    idle = measured([[IDLE], [IDLE]], "W", "simulated")
    return Machine({}, "now", "protocol", idle=idle, meter="simulated", **fields)


def test_a_window_lasts_as_long_as_the_meter_needs(monkeypatch):
    """The guess is that of a call that the host waits for, five times the device's own."""
    device = Device()
    monkeypatch.setattr(latency, "_between_events", device.between_events)
    monkeypatch.setattr("vovnet.lab.competitor.settle", lambda *_: HOST)
    own = competitor(device)
    for _ in range(2):
        Competitor.take_turn(own, 1.0, 0.1, device)
    for used, seconds in zip(own.samples.energy, own.samples.seconds, strict=True):
        assert used.seconds == pytest.approx(sum(seconds))
        assert 5.0 <= used.seconds < 5.0 + 4 * CALL
    assert len(own.calls) == sum(map(len, own.samples.seconds))
    found = _energy(own, machine(least_seconds=device.least_seconds))
    # 300 W for 2 ms are 0.6 J for four images; above idle 200 W, 0.4 J.
    assert found["joules_per_image"].value == pytest.approx(0.15)
    assert found["joules_per_image_net"].value == pytest.approx(0.1)
    assert found["joules_per_image"].valid
    assert found["energy_note"] is None


def test_a_window_that_is_too_short_makes_the_row_invalid():
    own = competitor(Device())
    own.samples.energy = [Energy(1500.0, 1500.0, 5.0), Energy(1260.0, 1260.0, 4.2)]
    own.samples.seconds = [[CALL] * 2500, [CALL] * 2100]
    found = _energy(own, machine(least_seconds=5.0))
    why = "a window of 4.20 s, the meter needs 5 s"
    assert found["energy_note"] == why
    for name in ("joules_per_image", "joules_per_image_net"):
        assert not found[name].valid
        assert why in found[name].method
    assert found["joules_per_image"].value == pytest.approx(0.15)
    assert _energy(own, machine(least_seconds=4.2))["joules_per_image"].valid


def test_counter_and_power_that_disagree_are_told_first():
    own = competitor(Device())
    own.samples.energy = [Energy(100.0, 150.0, 1.0)] * 2
    own.samples.seconds = [[CALL] * 500] * 2
    found = _energy(own, machine(least_seconds=5.0))
    assert found["energy_note"] == "counter 200.0 J, integrated power 300.0 J (+50%)"
    assert not found["joules_per_image"].valid
