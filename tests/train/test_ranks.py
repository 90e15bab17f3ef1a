"""Runs of several processes, started by torchrun as a user starts them."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from vovnet.distributed import is_main, process_group
from vovnet.models.weights import load_tensors
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.report import EpochReport
from vovnet.train.run import run_training

EPOCHS = 8
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
VALUES = {
    "val": "none",
    "model": "vovdet_nano",
    "batch": 16,
    "imgsz": 64,
    "amp": "off",
    "workers": 0,
    "resolution": [[0.5, 32]],
    "mosaic": [0.5, 0.0, 1.0],
    "sync_bn": True,
}
# Muon's direction, computed in float32, is sensitive where gradients are small: a few steps only.
CASES = (
    {"epochs": 4, "optimizer": "sgd", "lr": 0.02, "accumulate": 2},
    {"epochs": 2, "optimizer": "muon", "lr": 2e-3},
)


@pytest.fixture(scope="module")
def pictures(make_voc, tmp_path_factory) -> Path:
    """32 images to train, 5 to validate."""
    return make_voc(tmp_path_factory.mktemp("pictures"), train=32, val=5)


def train(folder: Path, data: str, values: dict, device: str) -> list[dict[str, float]]:
    """The loss terms of every step of a run."""
    losses: list[dict[str, float]] = []
    means: dict[str, float] = {}

    def listen(report: EpochReport, steps: int) -> None:
        before = means if report.steps > 1 else {}
        n = report.steps
        losses.append({k: v * n - before.get(k, 0.0) * (n - 1) for k, v in report.losses.items()})
        means.update(report.losses)

    recipe = recipe_from_dict(VALUES | values | {"data": [data]})
    run_training(recipe, folder, device=device, on_step=listen)
    return losses


def train_precisely(folder: str, data: str) -> list[list[dict[str, float]]]:
    """Every case in turn, in this process or in several, in float64.

    In float32 a sum in another order now and then flips the sign of what a ReLU sees, and from
    there two runs part, as two single processes with other numbers of threads do.
    """
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # losses and statistics raise to float32
    with process_group("cpu") as device:
        return [
            train(Path(folder) / str(i), data, values, device) for i, values in enumerate(CASES)
        ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def course(folder: Path) -> list[dict[str, str]]:
    """The lines of results.csv without what depends on the clock and the memory."""
    kept = ("epoch", "size", "lr", "loss_", "map_")
    return [{k: v for k, v in row.items() if k.startswith(kept)} for row in rows(folder)]


@pytest.mark.slow
def test_two_processes_of_8_are_one_of_16_at_every_step(pictures, tmp_path, in_ranks):
    data = f"{pictures}@train"
    [alone] = in_ranks(train_precisely, str(tmp_path / "alone"), data, count=1)
    one, two = in_ranks(train_precisely, str(tmp_path / "together"), data)
    assert one == two
    for i, (whole, shared) in enumerate(zip(alone, one, strict=True)):
        assert len(whole) == len(shared) == 2 * CASES[i]["epochs"]
        for step, other in zip(whole, shared, strict=True):
            assert step.keys() == other.keys()
            assert max(abs(value - other[term]) for term, value in step.items()) < 1e-5


def train_by_the_clock_and_stop(folder: str, data: str) -> dict[str, list[float]]:
    """Learning rates of the steps of two runs: one of so many seconds, and one in which a single
    process is asked to stop."""
    rates: dict[str, list[float]] = {"clock": [], "stop": []}

    def ask(report: EpochReport, steps: int) -> None:
        rates["stop"].append(report.lr)
        if report.steps == 3 and not is_main():
            os.kill(os.getpid(), signal.SIGTERM)

    common = VALUES | {"data": [data], "batch": 4, "amp": "auto", "workers": None}
    with process_group("cpu") as device:
        run_training(
            recipe_from_dict(common | {"minutes": 0.05}),
            Path(folder) / "clock",
            device=device,
            on_step=lambda report, steps: rates["clock"].append(report.lr),
        )
        with pytest.raises(KeyboardInterrupt):
            run_training(
                recipe_from_dict(common | {"epochs": 2}),
                Path(folder) / "stop",
                device=device,
                on_step=ask,
            )
    return rates


@pytest.mark.slow
def test_processes_take_the_same_steps_and_stop_together(pictures, tmp_path, in_ranks):
    one, two = in_ranks(train_by_the_clock_and_stop, str(tmp_path), f"{pictures}@train")
    assert one == two
    assert len(one["clock"]) > 1
    assert len(one["stop"]) == 3
    _, metadata = load_tensors(tmp_path / "stop" / "state.safetensors")
    assert (metadata["epoch"], metadata["step"]) == (0, 3)


def arguments(pictures: Path) -> list[str]:
    """`vovnet train` in the words of the command line."""
    values = f"--batch 16 --imgsz 64 --amp off --workers 0 --sync-bn --epochs {EPOCHS} --name run"
    data = ["--data", f"{pictures}@train", "--val", f"{pictures}@val", "--val-every", "2"]
    return ["-m", "vovnet", "train", *data, *values.split()]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory) -> Path:
    """The folder of two processes' run that nothing happened to."""
    folder = tmp_path_factory.mktemp("unbroken")
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *arguments(pictures)]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    return folder / "runs" / "train" / "run"


def workers_of(agent: int) -> list[int]:
    """Process ids of what torchrun has started, in order."""
    found = []
    for task in Path(f"/proc/{agent}/task").glob("*/children"):
        found += [int(pid) for pid in task.read_text().split()]
    return sorted(p for p in found if b"vovnet" in Path(f"/proc/{p}/cmdline").read_bytes())


def wait_for(what: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError):  # a file that is not there yet, a process that is gone
            if what():
                return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_that_loses_a_worker_ends_as_if_nothing_had_been(
    pictures, unbroken, tmp_path, victim
):
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command += arguments(pictures)
    folder = tmp_path / "runs" / "train" / "run"
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), **PIPES) as agent:
        try:
            wait_for(lambda: len(rows(folder)) >= 2, agent)
            before = workers_of(agent.pid)
            assert len(before) == 2
            os.kill(before[victim], signal.SIGKILL)
            assert len(rows(folder)) < EPOCHS
            wait_for(lambda: len({*workers_of(agent.pid)} - {*before}) == 2, agent)
            out, err = agent.communicate(timeout=200)
        finally:
            agent.terminate()
    assert agent.returncode == 0, err
    assert out == "runs/train/run\n"
    assert [row["epoch"] for row in rows(folder)] == [str(i + 1) for i in range(EPOCHS)]
    assert course(folder) == course(unbroken)
    (tensors, metadata), (others, other) = (
        load_tensors(path / "state.safetensors") for path in (folder, unbroken)
    )
    assert (metadata["epoch"], metadata["step"]) == (other["epoch"], other["step"])
    assert metadata["step"] == 2 * EPOCHS
    assert all(torch.equal(value, others[key]) for key, value in tensors.items())
    assert [p.name for p in folder.parent.iterdir()] == ["run"]


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: 10.77.0.1 and 10.77.0.2, both on `veth`."""
    names = [f"vovnet{os.getpid()}{letter}" for letter in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        one, two = names
        peer = ("peer", "name", "veth", "netns", two)
        ip("-n", one, "link", "add", "veth", "type", "veth", *peer)
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "veth")
            ip("-n", name, "link", "set", "veth", "up")
        yield one, two
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def why_no_namespaces() -> str | None:
    """What is missing to make network namespaces."""
    if shutil.which("ip") is None:
        return "needs iproute2"
    if os.geteuid() != 0:
        return "needs root"
    try:
        with two_hosts():
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.decode().strip()}"


@pytest.mark.slow
def test_two_hosts_train_as_one(pictures, unbroken, tmp_path):
    if reason := why_no_namespaces():
        pytest.skip(reason)
    with two_hosts() as hosts:
        started = []
        for number, host in enumerate(hosts, 1):
            command = ["ip", "netns", "exec", host, *TORCHRUN, "--nnodes", "2"]
            command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29400"]
            command += ["--rdzv-conf", f"is_host={number == 1}"]
            command += ["--rdzv-id", "vovnet", "--local-addr", f"10.77.0.{number}"]
            settings = environment(GLOO_SOCKET_IFNAME="veth")
            command += arguments(pictures)
            started.append(subprocess.Popen(command, cwd=tmp_path, env=settings, **PIPES))
        try:
            said = [process.communicate(timeout=250) for process in started]
        finally:
            for process in started:
                process.terminate()
    for process, (_, err) in zip(started, said, strict=True):
        assert process.returncode == 0, err
    assert sorted(out for out, _ in said) == ["", "runs/train/run\n"]
    assert course(tmp_path / "runs" / "train" / "run") == course(unbroken)
