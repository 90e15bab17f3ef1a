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
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, _ALL)


def usable_cores() -> int:
    """Processor cores that this process may use, where the system tells; else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(device: torch.device) -> float:
    """Bytes that can still be taken on a device; without limit where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return math.inf if kilobytes is None else 1024.0 * int(kilobytes)
