"""The machine and the versions that a result was made with."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from vovnet import __version__
from vovnet.limits import usable_cores

# Import name -> distributions that provide it, the first installed one counts.
_OPTIONAL = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "skimage": ("scikit-image",),
}
_NO_USERS = {"all", "dev"}  # extras that bring what others bring, or what developers need


def environment() -> dict[str, Any]:
    """Versions, CPU, memory and CUDA devices, ready for JSON.

    What cannot be found out is None; nothing raises. Without torch, which a light installation
    does not have, what only torch knows is None, and no CUDA device is seen. Holds no host name,
    user name or path.
    """
    torch = _import_torch()
    return {
        "versions": {
            "python": platform.python_version(),
            "vovnet": __version__,
            "torch": _build_of(torch),
            **{name: _version(name) for name in ("torchvision", "numpy", "pillow")},
            **{name: _version(*packages) for name, packages in _OPTIONAL.items()},
        },
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {
            "model": _cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "torch_threads": torch and torch.get_num_threads(),
            "capability": torch and torch.backends.cpu.get_cpu_capability(),
            "flags": _cpu_flags(torch),
        },
        "memory_bytes": _memory(),
        "cuda": _cuda_devices(torch),
        "extras_lack": _lacking(),
    }


def _import_torch() -> Any:
    """The package; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def _build_of(torch: Any) -> str | None:
    """Unlike the metadata it names the build: +cpu, +cu130."""
    return torch and str(torch.__version__)


def _lacking() -> dict[str, list[str]]:
    """Of every extra that this installation offers, the packages that are not installed."""
    offered = _extras()
    lacking = {extra: _packages(extra, offered) for extra in sorted(offered.keys() - _NO_USERS)}
    return {extra: sorted(p for p in all_ if not _version(p)) for extra, all_ in lacking.items()}


def _extras() -> dict[str, list[str]]:
    """What the metadata of this installation says that every extra brings."""
    try:
        lines = requires("vovnet") or []
    except PackageNotFoundError:  # run from its source, not installed
        return {}
    offered: dict[str, list[str]] = {}
    for line in lines:
        if extra := re.search(r"""extra == ['"](.+?)['"]""", line):
            offered.setdefault(extra[1], []).append(line)
    return offered


def _packages(extra: str, offered: dict[str, list[str]]) -> set[str]:
    """The packages of an extra and of those that it takes in, such as `vovnet[train]`."""
    packages = set()
    for line in offered.get(extra, ()):
        if taken := re.match(r"vovnet\[(.+?)\]", line):
            packages |= set().union(*(_packages(e, offered) for e in taken[1].split(",")))
        elif name := re.match(r"[\w.-]+", line):
            packages.add(name[0])
    return packages


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


def _cpu_flags(torch: Any) -> list[str]:
    """The instruction sets that torch sees, sorted; empty where torch cannot tell."""
    try:
        capabilities = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):  # no torch, or one older than this call
        return []
    return sorted(name for name, value in capabilities.items() if value is True)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _cuda_devices(torch: Any) -> list[dict[str, Any]]:
    if torch is None:
        return []
    try:
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError):  # a driver that does not fit this torch
        return []
    return [{"name": d.name, "memory_bytes": d.total_memory} for d in devices]
