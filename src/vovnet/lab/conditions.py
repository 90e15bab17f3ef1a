"""Temperature and clock of the moment, where the machine tells them."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import torch

from vovnet.lab.energy import GpuMeter, Meter

SYS, PROC = Path("/sys"), Path("/proc")


def conditions(
    device: torch.device, meter: Meter | None = None, *, sys: Path = SYS, proc: Path = PROC
) -> dict[str, float | None]:
    """`temperature_c` and `clock_mhz`; None where they cannot be read, as on virtual machines.

    A CPU's temperature is that of its hottest thermal zone, its clock the mean of the cores.
    """
    if device.type == "cuda":
        if isinstance(meter, GpuMeter):
            return meter.conditions()
        return {"temperature_c": None, "clock_mhz": None}
    zones = _numbers(sys.glob("class/thermal/thermal_zone*/temp"))
    kilohertz = _numbers(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    clocks = [value / 1000 for value in kilohertz] or _cpuinfo_clocks(proc / "cpuinfo")
    return {
        "temperature_c": max(zones) / 1000 if zones else None,
        "clock_mhz": round(fmean(clocks), 1) if clocks else None,
    }


def _numbers(paths: Iterable[Path]) -> list[float]:
    values = []
    for path in paths:
        try:
            values.append(float(path.read_text()))
        except (OSError, ValueError):  # a sensor that is off
            continue
    return values


def _cpuinfo_clocks(path: Path) -> list[float]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
