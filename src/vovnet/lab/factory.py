"""A network that a function of somebody's own Python file makes: `FILE.py:FUNCTION`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader
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
    with _module(Path(path)) as module:
        network = _call(module, function, name)
        if imgsz is None and hasattr(module, "example"):
            imgsz = _side(_call(module, "example", f"{path}:example"), path)
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise VovnetError(f"{name}: returns a {kind}; it must return a torch.nn.Module")
    return network.eval(), imgsz or _USUAL


def _side(images: Any, path: str) -> int:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        raise VovnetError(f"{path}:example: must return one tensor N×3×S×S")
    if images.shape[2] != images.shape[3]:
        raise VovnetError(f"{path}:example: images must be square, not {images.shape[2:]}")
    return images.shape[3]


@contextmanager
def _module(path: Path) -> Iterator[ModuleType]:
    """The file as a module, which may import what lies beside it, also when it is called."""
    if not path.is_file():
        raise VovnetError(f"{path}: no such file; check the path")
    name = f"vovnet.lab.factory.{path.stem}"  # shadows nothing; dataclasses look themselves up
    spec = spec_from_file_location(name, path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        _execute(spec.loader, module, path)
        yield module
    finally:
        sys.path.pop(0)
        del sys.modules[name]


def _execute(loader: Loader, module: ModuleType, path: Path) -> None:
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise VovnetError(f"{path}: cannot be run: {_told(error)}") from error


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
