import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import nn

from vovnet.distributed import (
    _fresh,
    broadcast_object,
    broadcast_state,
    gather_objects,
    is_main,
    leave,
    left,
    mean_across,
    process_group,
    processes_here,
    rank,
    sum_across,
    sum_gradients_across,
    world_size,
)
from vovnet.errors import VovnetError


def gradients() -> list[list[float]]:
    """Summed over the processes: of a parameter that all have used, and one that the first has."""
    both, first = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    (both.sum() + first.sum() if is_main() else both.sum()).backward()
    sum_gradients_across([both, first])
    return [p.grad.tolist() for p in (both, first)]


def talk() -> dict:
    """What a process of several hears from the others, until one leaves and one has a fault."""
    heard = {}
    try:
        with process_group("cpu") as device:
            mine = torch.tensor([rank(), 10.0 * rank()])
            network = nn.BatchNorm2d(1)
            nn.init.constant_(network.weight, rank() + 1)
            network.num_batches_tracked.fill_(7 - rank())
            broadcast_state(network)
            heard = {
                "device": device,
                "main": is_main(),
                "sum": sum_across(mine).tolist(),
                "mean": mean_across(mine).tolist(),
                "mine": mine.tolist(),
                "gradients": gradients(),
                "gathered": gather_objects({"rank": rank()}),
                "broadcast": broadcast_object("news" if is_main() else None),
                "state": [v.tolist() for v in network.state_dict().values()],
            }
            if not is_main():
                raise RuntimeError("a fault of its own")
            sum_across(mine)
    except (RuntimeError, VovnetError) as error:
        heard["end"] = str(error)
    return heard | {"after": world_size()}


def test_two_processes_hear_each_other(in_ranks):
    one, two = in_ranks(talk)
    assert one.pop("end").startswith("process 0: the other processes are gone (")
    assert two.pop("end") == "a fault of its own"
    both = {
        "device": "cpu",
        "sum": [1.0, 10.0],
        "mean": [0.5, 5.0],
        "gradients": [[2.0, 2.0], [1.0]],  # what only one process has a gradient of counts once
        "broadcast": "news",
        "state": [[1.0], [0.0], [0.0], [1.0], 7],
        "after": 1,
    }
    assert one == both | {
        "main": True,
        "mine": [0.0, 0.0],
        "gathered": [{"rank": 0}, {"rank": 1}],
    }
    assert two == both | {"main": False, "mine": [1.0, 10.0], "gathered": []}


def test_alone_nothing_happens(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    value, network = torch.tensor([2.0, 4.0]), nn.Linear(2, 2)
    with process_group("cuda") as device:
        assert device == "cuda"
        assert (rank(), world_size(), is_main(), processes_here()) == (0, 1, True, 1)
        assert torch.equal(sum_across(value), value)
        assert torch.equal(mean_across(value), value)
        assert gather_objects("x") == ["x"]
        assert broadcast_object("x") == "x"
        broadcast_state(network)
        leave("key", "value")
        assert left("key") is None


@pytest.mark.parametrize("late", [0, 1, 2])
def test_what_an_earlier_attempt_left_in_the_store_is_not_read(late):
    shared = dist.HashStore()

    def addresses(number: int, attempt: int) -> list[bytes]:
        """What one of three processes reads of all, having left an address of its own."""
        time.sleep(0.1 * (number == late))
        store = _fresh(shared, number, 3)
        time.sleep(0.1 * (number == late))
        store.set(f"address{number}", f"{attempt}.{number}")
        return [store.get(f"address{i}") for i in range(3)]

    with ThreadPoolExecutor(3) as pool:
        for attempt in range(3):
            for read in pool.map(addresses, range(3), [attempt] * 3):
                assert read == [f"{attempt}.{i}".encode() for i in range(3)]


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VovnetError, match="WORLD_SIZE is set, RANK and LOCAL_RANK and MASTER"):
        process_group("cpu").__enter__()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    number = str(torch.cuda.device_count())
    values = {"WORLD_SIZE": "9", "RANK": "8", "LOCAL_RANK": number}
    for name, value in (values | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VovnetError, match=f"process {number} of this machine has no GPU of its"):
        process_group("cuda").__enter__()
