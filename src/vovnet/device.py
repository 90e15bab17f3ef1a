"""Which device to compute on, in which precision it is fast, and what memory it has left."""

import ctypes
import math
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn

from vovnet.errors import VovnetError

# Of glibc's mallopt: from which size on memory comes from the system itself, and how much of what
# is free at the heap's end goes back to it.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_ALL = 2**31 - 1

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


def usable_device(name: str) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); `VovnetError` if it cannot be used."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # "meta" exists, but holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise VovnetError(f"device {name}: not usable here ({reason}); try cpu") from None
    return device


@cache
def bf16_pays(kind: str) -> bool:
    """Whether bf16 autocast makes convolutions faster on a device of that kind ("cpu", "cuda").

    A GPU is asked. A processor without bf16 instructions emulates them, slowly; one with them is
    timed, because some (Xeons whose matrix units a virtual machine hides) run them at half the
    rate of float32.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return False
    return _seconds_of_convolution(True) < 0.9 * _seconds_of_convolution(False)


def _seconds_of_convolution(bf16: bool, repeats: int = 5) -> float:
    """The fastest of some passes, forward and back, through a 3×3 convolution like OSA's."""
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.ones(4, 64, 48, 48).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total = layer(images).float().sum()
        total.backward()
        best = min(best, time.perf_counter() - start)
    return best


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for its next step, where the C library is
    glibc. Else the system takes large tensors back and zeroes every page of the next ones, which
    is a twelfth of a training step on a CPU."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        # Older ones (before 2.33) take no more than the second. Without either, a threshold for
        # trimming alone would keep glibc from raising the other one by itself.
        if any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
            libc.mallopt(_M_TRIM_THRESHOLD, _ALL)


def usable_cores() -> int:
    """Processor cores that this process may use, where the system tells; else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(device: torch.device) -> float:
    """Bytes that can still be taken on a device, within a container's limit; half of all memory, or
    without limit (Windows), where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
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
