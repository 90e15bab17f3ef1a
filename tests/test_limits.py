import os
import subprocess
import sys

import pytest

from vovnet import limits


@pytest.mark.parametrize(
    ("names", "limit", "cached", "left"),
    [
        (("memory.max", "memory.current", "memory.stat"), "5000", "inactive_file 1000", 3000),
        (("memory.max", "memory.current", "memory.stat"), "5000", "anon 9", 2000),
        (("memory.max", "memory.current", "memory.stat"), "max", "inactive_file 1000", None),
        (
            (
                "memory/memory.limit_in_bytes",
                "memory/memory.usage_in_bytes",
                "memory/memory.stat",
            ),
            "5000",
            "cache 7\ntotal_inactive_file 500",
            2500,
        ),
    ],
)
def test_a_container_leaves_less_memory(tmp_path, monkeypatch, names, limit, cached, left):
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(limits, "_CONTROL", str(tmp_path))
    free = limits.free_host_memory()
    for name, text in zip(names, (limit, "3000", cached), strict=True):
        (tmp_path / name).write_text(f"{text}\n")
    found = limits.free_host_memory()
    assert found == left if left else found == pytest.approx(free, rel=0.3)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 64),
        ({"cpu.max": "what"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000"}, 64),
        ({}, 64),
    ],
)
def test_a_container_shares_out_its_cores_time(tmp_path, monkeypatch, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(limits, "_CONTROL", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert limits.usable_cores() == cores


def test_it_is_told_without_torch():
    code = "import sys, vovnet.limits; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
