import torch

from vovnet.lab.conditions import conditions
from vovnet.lab.energy import GpuMeter

CPU = torch.device("cpu")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_temperature_and_clock_where_they_can_be_read(tmp_path):
    write(tmp_path / "class/thermal/thermal_zone0/temp", "41000\n")
    write(tmp_path / "class/thermal/thermal_zone1/temp", "57500\n")
    write(tmp_path / "class/thermal/thermal_zone2/temp", "broken\n")
    for core, kilohertz in enumerate((2_400_000, 3_600_000)):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        write(folder / "scaling_cur_freq", f"{kilohertz}\n")
    found = conditions(CPU, sys=tmp_path, proc=tmp_path)
    assert found == {"temperature_c": 57.5, "clock_mhz": 3000.0}


def test_the_clock_of_cpuinfo(tmp_path):
    write(tmp_path / "cpuinfo", "model name: x\ncpu MHz\t\t: 2300.05\ncpu MHz\t\t: 2500.01\n")
    found = conditions(CPU, sys=tmp_path, proc=tmp_path)
    assert found == {"temperature_c": None, "clock_mhz": 2400.0}  # 2400.03, to a tenth


def test_machines_that_tell_nothing(tmp_path):
    nothing = {"temperature_c": None, "clock_mhz": None}
    assert conditions(CPU, sys=tmp_path, proc=tmp_path) == nothing
    assert conditions(torch.device("cuda"), None) == nothing


def test_a_gpus_own_meter_tells_its_conditions():
    class Board(GpuMeter):
        def __init__(self) -> None:
            """Without NVML."""

        def conditions(self) -> dict[str, float | None]:
            return {"temperature_c": 61.0, "clock_mhz": 1980.0}

    wanted = {"temperature_c": 61.0, "clock_mhz": 1980.0}
    assert conditions(torch.device("cuda"), Board()) == wanted
