"""Processes that work together, started by torchrun; in a single process nothing happens here.

Every process must call what talks to the others, in the same order, whatever its data: one that
waits for a call that never comes waits until the time is out.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vovnet.errors import VovnetError

# Longer than any step, evaluation or the reading of a data set that others wait for.
_PATIENCE = timedelta(minutes=10)
# torchrun's own, which outlives restarts; empty in a single process.
_stores: list["dist.Store"] = []
_PAUSE = 0.02  # seconds between two looks for an answer
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# How gloo and NCCL say that a process at the other end is gone.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|timeout|remote process|socket", re.I
)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """How many processes work together; 1 without torchrun."""
    return dist.get_world_size() if _joined() else 1


def processes_here() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world_size() > 1 else 1


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def leave(key: str, value: str) -> None:
    """Leave a word for the processes that torchrun starts after a restart; see `left`."""
    if _stores:
        _stores[0].set(f"left/{key}", value)


def left(key: str) -> str | None:
    """The word that the processes before a restart have left; None without one."""
    if not _stores or not _stores[0].check([f"left/{key}"]):
        return None
    return _stores[0].get(f"left/{key}").decode()


def sum_across(value: Tensor) -> Tensor:
    """The sum of every process's `value`, element by element, without gradient."""
    value = value.detach()
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def mean_across(value: Tensor) -> Tensor:
    """The mean of every process's `value`, element by element, without gradient."""
    return sum_across(value) / world_size()


def sum_gradients_across(parameters: Sequence[Tensor]) -> None:
    """Put the sum of every process's gradients in the place of each one's; None counts as 0."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def gather_objects(value: Any) -> list[Any]:
    """In the main process every process's `value`, by rank; in the others an empty list."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.gather_object(value, found if is_main() else None)
    return found if is_main() else []


def broadcast_object(value: Any) -> Any:
    """The main process's `value`, in all."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


@torch.no_grad()
def broadcast_state(network: nn.Module) -> None:
    """Give every process the main one's weights and statistics, in place."""
    if world_size() > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the other processes for the time of the block, if torchrun has started this one.

    Yields the device of this process: "cuda" becomes "cuda:LOCAL_RANK". Without torchrun, or with
    one process, nothing is joined and the device is as given. Raises `VovnetError` if the others
    cannot be reached, or are lost on the way.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if missing := [name for name in _NEEDED if name not in os.environ]:
        raise VovnetError(
            f"WORLD_SIZE is set, {' and '.join(missing)} not; start several processes with "
            "torchrun, or unset WORLD_SIZE"
        )
    device = _own_device(device)
    try:
        _join(device)
        yield device
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        reason = str(error).strip().splitlines()[0]
        raise VovnetError(
            f"process {os.environ['RANK']}: the other processes are gone ({reason}); see what they "
            "printed"
        ) from None
    finally:
        _stores.clear()
        if _joined():
            dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _own_device(device: str) -> str:
    if torch.device(device).type != "cuda":
        return device
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise VovnetError(
            f"process {number} of this machine has no GPU of its own, there are {count}; start at "
            f"most {max(1, count)} with --nproc-per-node, or use --device cpu"
        )
    return f"cuda:{number}"


def _join(device: str) -> None:
    if not dist.is_available():  # as in some of NVIDIA's builds for Jetson
        raise VovnetError("this torch was built without distribution; start a single process")
    from torch.distributed.rendezvous import rendezvous

    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    store, number, count = next(rendezvous("env://", timeout=_PATIENCE))
    _stores[:] = [store]
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=_fresh(store, number, count),
        rank=number,
        world_size=count,
        timeout=_PATIENCE,
    )


def _fresh(store: "dist.Store", number: int, count: int) -> "dist.Store":
    """The store below a name that is new, which process 0 chooses for all `count`.

    torchrun keeps one store over its restarts, where processes would find the addresses of those
    that are gone. So a name counts only when its owner has answered: to process 0's stale name
    nobody does.
    """
    name = uuid4().hex
    if number == 0:
        store.set("main", name)
        for other in range(1, count):
            asker = store.get(f"{name}/{other}").decode()
            store.set(asker, name)
        return dist.PrefixStore(name, store)
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while not store.check([name]):
        if time.monotonic() > deadline:
            raise RuntimeError("timed out waiting for process 0")
        store.set(f"{store.get('main').decode()}/{number}", name)
        time.sleep(_PAUSE)
    return dist.PrefixStore(store.get(name).decode(), store)
