"""Energies against what simulated hardware has really used."""

import time
from math import cos, pi
from types import SimpleNamespace

import pytest
import torch

from vovnet.errors import VovnetError
from vovnet.lab.energy import (
    Energy,
    GpuMeter,
    RaplMeter,
    disagreement,
    idle_watts,
    integrate,
    open_meter,
)

SECONDS = 10.0


class Clock:
    """Time that passes when it is looked at, so that no load of this machine shows."""

    def __init__(self, step: float = 0.02):
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class FakeNvml:
    """The part of pynvml's interface that is used: a board with the given power over time."""

    NVML_SUCCESS, NVML_FI_DEV_POWER_INSTANT = 0, 186
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    class NVMLError(Exception):
        pass

    def __init__(self, clock, joules, *, counts=True, senses=True, off=1.0):
        self.clock, self.joules = clock, joules  # energy used until a time
        self.counts, self.senses, self.off = counts, senses, off

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1":
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return int(1000 * self.joules(self.clock.now) * self.off)

    def nvmlDeviceGetFieldValues(self, handle, fields):
        assert fields == [self.NVML_FI_DEV_POWER_INSTANT]
        now, width = self.clock.now, 1e-4
        watts = (self.joules(now + width) - self.joules(now - width)) / (2 * width)
        value = SimpleNamespace(uiVal=round(1000 * watts))
        return [SimpleNamespace(nvmlReturn=0 if self.senses else 3, value=value)]

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 61

    def nvmlDeviceGetClockInfo(self, handle, domain):
        raise self.NVMLError("Not Supported")


def constant(t):
    return 250 * t


def varying(t):
    """The integral of 300 + 200·sin(2πt/5) watts."""
    return 300 * t + 200 * 5 / (2 * pi) * (1 - cos(2 * pi * t / 5))


def window(meter, clock):
    meter.begin()
    while clock.now < SECONDS:  # moved on by the meter's own thread
        time.sleep(0.001)
    return meter.end(), clock.now


@pytest.mark.parametrize("joules", [constant, varying])
def test_gpu_energy_is_what_the_board_used(joules):
    clock = Clock()
    meter = GpuMeter(FakeNvml(clock, joules), "GPU-1", period=0.0005, clock=clock)
    used, now = window(meter, clock)
    assert used.seconds == pytest.approx(now, rel=0.01)
    assert used.joules == pytest.approx(joules(now), rel=0.01)
    assert used.integrated == pytest.approx(joules(now), rel=0.01)
    assert disagreement([used]) is None
    assert meter.method == (
        "NVML total energy counter; instantaneous power integrated beside it; whole board"
    )


def test_a_window_holds_nothing_of_the_one_before():
    clock = Clock()
    meter = GpuMeter(FakeNvml(clock, varying), "GPU-1", period=0.0005, clock=clock)
    window(meter, clock)
    clock.now = 100.0  # idle time between the two, which no window may count
    meter.begin()
    while clock.now < 100.0 + SECONDS:
        time.sleep(0.001)
    used, now = meter.end(), clock.now
    assert used.seconds == pytest.approx(now - 100.0, rel=0.01)
    assert used.integrated == pytest.approx(varying(now) - varying(100.0), rel=0.01)
    assert used.joules == pytest.approx(varying(now) - varying(100.0), rel=0.01)


def test_a_counter_and_a_power_that_disagree_are_told():
    clock = Clock()
    meter = GpuMeter(FakeNvml(clock, constant, off=0.57), "GPU-1", period=0.0005, clock=clock)
    line = disagreement([window(meter, clock)[0]])
    assert "(+75%)" in line
    assert disagreement([Energy(100, 104, 1), Energy(100, 97, 1)]) is None
    assert disagreement([Energy(100, None, 1)]) is None


def test_a_card_without_a_counter_is_integrated():
    clock = Clock()
    nvml = FakeNvml(clock, varying, counts=False)
    meter = GpuMeter(nvml, "GPU-1", period=0.0005, clock=clock)
    used, now = window(meter, clock)
    assert used.joules == used.integrated == pytest.approx(varying(now), rel=0.01)
    assert meter.method == "NVML instantaneous power; whole board"
    assert meter.conditions() == {"temperature_c": 61, "clock_mhz": None}


def test_a_card_without_a_power_sensor_is_counted():
    clock = Clock()
    meter = GpuMeter(FakeNvml(clock, constant, senses=False), "GPU-1", clock=clock)
    meter.begin()
    clock.now += SECONDS
    used = meter.end()
    assert used.joules == pytest.approx(constant(SECONDS), rel=0.01)
    assert used.integrated is None
    assert meter.method == "NVML total energy counter; whole board"


def test_cards_that_cannot_be_measured():
    clock = Clock()
    with pytest.raises(VovnetError, match="NVML: Not Found"):
        GpuMeter(FakeNvml(clock, constant), "GPU-2")
    with pytest.raises(VovnetError, match="neither energy nor instantaneous power"):
        GpuMeter(FakeNvml(clock, constant, counts=False, senses=False), "GPU-1")
    with pytest.raises(VovnetError, match="no energy counter is known for meta"):
        open_meter(torch.device("meta"))


def rapl(root, *, whole=262_143_328_850, **packages):
    for i, (name, microjoules) in enumerate(packages.items()):
        zone = root / f"intel-rapl:{i}"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(f"{name.replace('_', '-')}\n")
        (zone / "energy_uj").write_text(f"{microjoules}\n")
        (zone / "max_energy_range_uj").write_text(f"{whole}\n")
    return root


def test_rapl_adds_up_packages_and_survives_a_turn_of_the_counter(tmp_path):
    whole = 1_000_000_000
    root = rapl(tmp_path, whole=whole, package_0=whole - 3_000_000, package_1=5_000_000, psys=1)
    meter = RaplMeter(root, clock=Clock(step=2.0))
    meter.begin()
    rapl(tmp_path, whole=whole, package_0=4_000_000, package_1=15_000_000, psys=999_000_000)
    used = meter.end()
    assert used == Energy(pytest.approx(17.0), None, pytest.approx(2.0))
    assert "2 CPU package(s)" in meter.method
    meter.begin()
    rapl(tmp_path, whole=whole, package_0=4_000_000, package_1=20_000_000)
    assert meter.end().joules == pytest.approx(5.0)  # neither has turned, one has not moved


def test_machines_without_rapl(tmp_path):
    with pytest.raises(VovnetError, match="no RAPL counters"):
        RaplMeter(tmp_path / "powercap")
    with pytest.raises(VovnetError, match="no RAPL counters"):
        RaplMeter(rapl(tmp_path, psys=1))
    root = rapl(tmp_path / "odd", package_0=1)
    (root / "intel-rapl:0" / "energy_uj").write_text("")
    with pytest.raises(VovnetError, match="energy_uj: cannot be read as a number"):
        RaplMeter(root)


def test_idle_watts(tmp_path):
    class Idle:
        method, least_seconds = "x", 0.0

        def begin(self):
            pass

        def end(self):
            return Energy(30.0, None, 2.0)

    assert idle_watts(Idle(), repeats=2) == [15.0, 15.0]


def test_integrate_is_the_trapezoidal_rule():
    # 2 s of 15 W on the average, 1 s of 12 W; 40 J by the left, 44 J by the right values.
    assert integrate([(0, 10), (2, 20), (3, 4)]) == 42
    assert integrate([(0, 10)]) == 0


def test_the_double_has_the_names_of_the_library():
    pynvml = pytest.importorskip("pynvml")
    constants = [n for n in vars(FakeNvml) if n.startswith("NVML_")]
    assert [getattr(pynvml, name) for name in constants] == [
        getattr(FakeNvml, name) for name in constants
    ]
    assert all(hasattr(pynvml, n) for n in vars(FakeNvml) if n.startswith("nvml"))
