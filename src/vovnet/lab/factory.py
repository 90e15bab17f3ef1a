"""A network that a function of somebody's own Python file makes: `FILE.py:FUNCTION`."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from vovnet.errors import UnknownNameError, VovnetError

_USUAL = 224  # pixels, where nobody says


def is_factory(name: str) -> bool:
    """Whether a name is that of a function in a Python file."""
    return ".py:" in name


def make_network(name: str, imgsz: int | None = None) -> tuple[nn.Module, int]:
    """The network in eval mode, and the side in pixels that it takes: `imgsz`, else that of the
    images N×3×S×S that `example()` of the same file returns, else 224.

    Runs the file. Raises `VovnetError` for one that cannot be run or makes something else.
    """
    path, _, function = name.rpartition(":")
    module = _run(Path(path))
    network = _call(module, function, name)
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise VovnetError(f"{name}: returns a {kind}; it must return a torch.nn.Module")
    if imgsz is None and hasattr(module, "example"):
        images = _call(module, "example", f"{path}:example")
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
            raise VovnetError(f"{path}:example: must return one tensor N×3×S×S")
        if images.shape[2] != images.shape[3]:
            raise VovnetError(f"{path}:example: images must be square, not {images.shape[2:]}")
        imgsz = images.shape[3]
    return network.eval(), imgsz or _USUAL


def _run(path: Path) -> ModuleType:
    """The file as a module, which may import what lies beside it."""
    if not path.is_file():
        raise VovnetError(f"{path}: no such file; check the path")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise VovnetError(f"{path}: cannot be run: {_told(error)}") from error
    finally:
        sys.path.pop(0)
    return module


def _call(module: ModuleType, function: str, name: str) -> Any:
    own: dict[str, Callable[[], Any]] = {
        key: value for key, value in vars(module).items() if callable(value) and key[0] != "_"
    }
    if function not in own:
        raise UnknownNameError(f"function of {name.rpartition(':')[0]}", function, own)
    try:
        return own[function]()
    except (Exception, SystemExit) as error:
        raise VovnetError(f"{name}: failed: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
