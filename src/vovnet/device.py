"""Which device to compute on, in which precision it is fast, and what memory it has left."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from statistics import median

import torch
from torch import nn

from vovnet.errors import VovnetError
from vovnet.limits import free_host_memory

# Of glibc's mallopt: from which size on memory comes from the system itself, and how much of what
# is free at the heap's end goes back to it.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_ALL = 2**31 - 1

_PASSES = 8  # of a trial: one alone may run while the other program rests
_CLEARLY_SLOWER = 1.1


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
    # In turn, the fastest of each: whatever else the machine does then hits both.
    rounds = [(_seconds_of_convolution(True), _seconds_of_convolution(False)) for _ in range(8)]
    bf16, float32 = map(min, zip(*rounds[1:], strict=True))
    return bf16 < 0.9 * float32


def _seconds_of_convolution(bf16: bool) -> float:
    """One pass, forward and back, through a 3×3 convolution like OSA's."""
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.ones(4, 64, 48, 48).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total = layer(images).float().sum()
    total.backward()
    return time.perf_counter() - start


@contextmanager
def threads_used(count: int | None) -> Iterator[int]:
    """torch's number of threads on the CPU, which belongs to the process, for a while; None leaves
    it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield before
        return
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def threads_that_pay() -> int:
    """How many threads convolve fastest now: torch's own number, or a half, a quarter, ... of it.

    Threads wait for each other after every layer, so one that shares its core with another program
    makes all of them slow. Where OMP_NUM_THREADS says how many there are to be, so it is.
    """
    most = torch.get_num_threads()
    if most == 1 or os.environ.get("OMP_NUM_THREADS"):
        return most
    counts = [most >> i for i in range(most.bit_length())]
    # In turn: whatever else the machine does then hits all.
    rounds = [[_seconds_of_passes(count) for count in counts] for _ in range(4)]
    typical = [median(seconds) for seconds in zip(*rounds[1:], strict=True)]
    fastest = min(typical)
    return next(n for n, t in zip(counts, typical, strict=True) if t < _CLEARLY_SLOWER * fastest)


def _seconds_of_passes(threads: int) -> float:
    with threads_used(threads):
        return sum(_seconds_of_convolution(False) for _ in range(_PASSES))


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


def free_memory(device: torch.device) -> float:
    """Bytes that can still be taken on a device; see `free_host_memory`."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return free_host_memory()
