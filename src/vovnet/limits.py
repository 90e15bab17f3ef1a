"""What this process may use of the machine's cores and memory, told without torch, whose import
takes longer than many a command."""

import math
import os
from pathlib import Path

# Where Linux tells of a container's memory: its limit, what is used, and of that the files' part.
_CONTROL = "/sys/fs/cgroup"
_LIMITS = (
    ("memory.max", "memory.current", ("memory.stat", "inactive_file")),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        ("memory/memory.stat", "total_inactive_file"),
    ),
)


def usable_cores() -> int:
    """Processor cores that this process may use, within a container's share of their time, where
    the system tells; else all of them."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, _share_of_time())))


def _share_of_time() -> float:
    """Cores' worth of time that a container may take (control groups, both versions)."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = [w for n in names for w in Path(f"{_CONTROL}/{n}").read_text().split()]
        except OSError:
            continue
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            return int(words[0]) / int(words[1])  # without a limit: "max", and -1 in older ones
    return math.inf


def free_host_memory() -> float:
    """Bytes of main memory that can still be taken, within a container's limit; half of all memory,
    or without limit (Windows), where the system does not tell."""
    kilobytes = _numbers("/proc/meminfo").get("MemAvailable:")
    machine = _half_of_memory() if kilobytes is None else 1024.0 * kilobytes
    return min(machine, _room_in_container())


def _half_of_memory() -> float:
    """Where the system does not tell what is free (macOS), but tells what there is."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (ValueError, OSError, AttributeError):
        return math.inf


def _room_in_container() -> float:
    """Bytes that a container's limit leaves (control groups, both versions)."""
    for limit, used, files in _LIMITS:
        most, now = (_numbers(f"{_CONTROL}/{name}").get("") for name in (limit, used))
        if most is not None and now is not None:
            # What was read from disk counts as used, and is given back when memory is wanted.
            kept = _numbers(f"{_CONTROL}/{files[0]}").get(files[1], 0)
            return float(max(0, most - now + kept))
    return math.inf


def _numbers(path: str) -> dict[str, int]:
    """Numbers by name of a file of lines `NAME NUMBER`; a single number's name is empty. Empty
    where there is no such file."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    pairs = [(words[0], words[1]) if len(words) > 1 else ("", *words) for words in lines if words]
    return {name: int(number) for name, number in pairs if number.isdigit()}
