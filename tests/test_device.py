import platform
import subprocess
import sys

import pytest
import torch

from vovnet import device
from vovnet.errors import VovnetError


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(VovnetError, match="cuda:99"):
        device.usable_device("cuda:99")


@pytest.mark.parametrize(
    ("instructions", "seconds", "pays"),
    [
        ({"avx512_bf16": True}, {True: 1.0, False: 2.0}, True),
        ({"avx512_bf16": True}, {True: 2.0, False: 1.0}, False),  # there, but at half the rate
        ({"amx_bf16": True}, {True: 0.95, False: 1.0}, False),  # not worth the lost digits
        ({}, {True: 1.0, False: 2.0}, False),  # emulated: nothing is timed
    ],
)
def test_bf16_is_taken_where_it_is_faster(monkeypatch, instructions, seconds, pays):
    device.bf16_pays.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    monkeypatch.setattr(device, "_seconds_of_convolution", seconds.__getitem__)
    assert device.bf16_pays("cpu") is pays
    device.bf16_pays.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [
        ({4: 1.0, 2: 1.9, 1: 3.5}, 4),
        ({4: 1.05, 2: 1.0, 1: 2.0}, 4),  # not clearly slower
        ({4: 2.0, 2: 1.0, 1: 1.9}, 2),  # two of four cores are another program's
        ({4: 5.0, 2: 3.0, 1: 1.0}, 1),
    ],
)
def test_as_many_threads_as_pay(monkeypatch, seconds, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(device, "_seconds_of_passes", seconds.__getitem__)
    assert device.threads_that_pay() == threads


def test_threads_that_were_asked_for_are_not_tried_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(device, "_seconds_of_passes", None)
    assert device.threads_that_pay() == 4


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with device.threads_used(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with device.threads_used(None) as count:
        assert count == torch.get_num_threads() == before


def test_the_probe_runs_both_ways():
    assert all(device._seconds_of_convolution(bf16) > 0 for bf16 in (True, False))


# Pages that were new to the process while it used as much memory, again and again.
FAULTS = """
import resource, torch
from vovnet.device import keep_freed_memory
if {kept}:
    keep_freed_memory()
def use():
    torch.zeros(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = [use() for _ in range(16)]
new = sorted(after - before for before, after in zip(counts, counts[1:]))
print(new[len(new) // 2])  # a few find new places
"""


@pytest.mark.parametrize(("most", "trims"), [(2**30, True), (2**25, True), (0, False)])
def test_a_c_library_that_takes_less_is_asked_for_less(monkeypatch, most, trims):
    taken = []

    class Library:
        def mallopt(self, option: int, value: int) -> int:
            accepted = option != device._M_MMAP_THRESHOLD or value <= most
            taken.extend([option] * accepted)
            return int(accepted)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library())
    device.keep_freed_memory()
    assert (device._M_TRIM_THRESHOLD in taken) is trims


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    def faults(kept: bool) -> int:
        code = FAULTS.format(kept=kept)
        return int(subprocess.check_output([sys.executable, "-c", code]))

    assert faults(kept=True) < 100 < faults(kept=False)
