"""Joules from counters, or the reason why there are none; nothing here is an estimate.

A GPU is read through NVML: its energy counter, and beside it the instantaneous power integrated,
because the two have been seen to disagree (zeus issue 181). A CPU is read through RAPL.
"""

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from vovnet.errors import MissingExtraError, VovnetError

POWERCAP = Path("/sys/class/powercap")
DISAGREEMENT = 0.05  # relative, between counter and integrated power


class Energy(NamedTuple):
    """What a window used: joules by the counter, by integrated power (None without), and time."""

    joules: float
    integrated: float | None
    seconds: float


class Meter(Protocol):
    """Reads the energy of one device between `begin` and `end`.

    `method` names the source; windows shorter than `least_seconds` are not to be trusted.
    """

    method: str
    least_seconds: float

    def begin(self) -> None:
        """Start a window; the device must be idle or busy with what is measured alone."""

    def end(self) -> Energy:
        """What was used since `begin`."""
        ...


def open_meter(device: torch.device) -> Meter:
    """The meter of a device; `VovnetError` tells why there is none."""
    if device.type == "cpu":
        return RaplMeter()
    if device.type != "cuda":
        raise VovnetError(f"no energy counter is known for {device.type}")
    try:
        import pynvml
    except ImportError:
        raise MissingExtraError("nvidia-ml-py", "bench") from None
    uuid = torch.cuda.get_device_properties(device).uuid
    return GpuMeter(pynvml, f"GPU-{uuid}")


class GpuMeter:
    """An NVIDIA board by NVML: everything on it counts, other processes too.

    The counter (millijoules since the driver was loaded) moves about every 100 ms, hence the long
    windows. Raises `VovnetError` where NVML or both sources are missing.
    """

    least_seconds = 5.0

    def __init__(
        self,
        nvml: Any,
        uuid: str,
        *,
        period: float = 0.02,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._nvml, self._period, self._clock = nvml, period, clock
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        except nvml.NVMLError as error:
            raise VovnetError(f"NVML: {error}") from None
        self._counts, self._senses = self._counter() is not None, self._watts() is not None
        if not (self._counts or self._senses):
            raise VovnetError("NVML gives neither energy nor instantaneous power on this GPU")
        counter = "NVML total energy counter" if self._counts else "NVML instantaneous power"
        beside = "; instantaneous power integrated beside it" * (self._counts and self._senses)
        self.method = f"{counter}{beside}; whole board"
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = 0.0
        self._before: float | None = None

    def begin(self) -> None:
        """Start a window."""
        self._samples = []
        self._stop.clear()
        self._start, self._before = self._clock(), self._counter()
        if self._senses:
            self._sample()
            self._thread = threading.Thread(target=self._poll, daemon=True)
            self._thread.start()

    def end(self) -> Energy:
        """What was used since `begin`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._sample()
        seconds, after = self._clock() - self._start, self._counter()
        integrated = integrate(self._samples) if self._senses else None
        if self._before is None or after is None:
            assert integrated is not None
            return Energy(integrated, integrated, seconds)
        return Energy(after - self._before, integrated, seconds)

    def conditions(self) -> dict[str, float | None]:
        """Temperature in °C and the clock of the multiprocessors in MHz."""
        nvml = self._nvml
        return {
            "temperature_c": self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            "clock_mhz": self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        }

    def _poll(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()

    def _sample(self) -> None:
        watts = self._watts()
        if watts is not None:
            self._samples.append((self._clock(), watts))

    def _counter(self) -> float | None:
        millijoules = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def _watts(self) -> float | None:
        """The power of this moment: nvmlDeviceGetPowerUsage is the mean of the last second."""
        fields = self._ask(
            self._nvml.nvmlDeviceGetFieldValues, [self._nvml.NVML_FI_DEV_POWER_INSTANT]
        )
        if fields is None or fields[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return fields[0].value.uiVal / 1000

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(self._handle, *arguments)
        except self._nvml.NVMLError:  # not supported on this card
            return None


class RaplMeter:
    """The CPU packages by RAPL, through Linux's powercap folder.

    The counters wrap around; a window must be shorter than one turn (minutes at full power).
    Raises `VovnetError` where there are none or they cannot be read.
    """

    least_seconds = 1.0

    def __init__(
        self, root: Path = POWERCAP, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        zones = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
        self._packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
        if not self._packages:
            raise VovnetError(f"no RAPL counters in {root}; virtual machines do not have them")
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in self._packages]
        self._clock = clock
        self.method = f"RAPL, {len(self._packages)} CPU package(s), memory and board not included"
        self._before = self._read()
        self._start = clock()

    def begin(self) -> None:
        """Start a window."""
        self._before, self._start = self._read(), self._clock()

    def end(self) -> Energy:
        """What was used since `begin`."""
        after, now = self._read(), self._clock()
        turns = zip(self._before, after, self._ranges, strict=True)
        used = sum(b - a + (whole if b < a else 0) for a, b, whole in turns)
        return Energy(used / 1e6, None, now - self._start)

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._packages]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError:
        raise VovnetError(f"{path} is readable by root only; allow it with chmod a+r") from None
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdigit():
        raise VovnetError(f"{path}: cannot be read as a number")
    return int(text)


def integrate(samples: list[tuple[float, float]]) -> float:
    """Joules under (seconds, watts) samples in order, by the trapezoidal rule."""
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(samples))


def idle_watts(meter: Meter, repeats: int = 3) -> list[float]:
    """Watts while nothing runs, one number for each of several windows."""
    watts = []
    for _ in range(repeats):
        meter.begin()
        time.sleep(meter.least_seconds)
        used = meter.end()
        watts.append(used.joules / used.seconds)
    return watts


def disagreement(windows: list[Energy]) -> str | None:
    """A line if counter and integrated power differ by more than `DISAGREEMENT` in all."""
    counted = sum(window.joules for window in windows)
    integrated = sum(window.integrated or 0.0 for window in windows)
    if any(window.integrated is None for window in windows) or counted <= 0:
        return None
    off = integrated / counted - 1
    if abs(off) <= DISAGREEMENT:
        return None
    return f"counter {counted:.1f} J, integrated power {integrated:.1f} J ({off:+.0%})"
