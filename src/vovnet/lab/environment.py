"""The machine and the versions that a result was made with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vovnet import __version__
from vovnet.limits import usable_cores

# Import name -> distributions that provide it, the first installed one counts.
_OPTIONAL = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "skimage": ("scikit-image",),
}


def environment() -> dict[str, Any]:
    """Versions, CPU, memory and CUDA devices, ready for JSON.

    What cannot be found out is None; nothing raises. Holds no host name, user name or path.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "vovnet": __version__,
            "torch": str(torch.__version__),  # unlike the metadata it names the build: +cpu, +cu130
            **{name: _version(name) for name in ("torchvision", "numpy", "pillow")},
            **{name: _version(*packages) for name, packages in _OPTIONAL.items()},
        },
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {
            "model": _cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "torch_threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "flags": _cpu_flags(),
        },
        "memory_bytes": _memory(),
        "cuda": _cuda_devices(),
    }


def _version(*packages: str) -> str | None:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _cpu_flags() -> list[str]:
    """The instruction sets that torch sees, sorted; empty where torch cannot tell."""
    try:
        capabilities = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):  # newer than the oldest torch we run on
        return []
    return sorted(name for name, value in capabilities.items() if value is True)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _cuda_devices() -> list[dict[str, Any]]:
    try:
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError):  # a driver that does not fit this torch
        return []
    return [{"name": d.name, "memory_bytes": d.total_memory} for d in devices]
