"""Peak memory of one network in one runtime, measured in a process of its own.

    python -m vovnet.lab.memory JOB SMALL NETWORK

runs the job that `peak_memory` wrote as JSON, on pickled networks or ONNX files, and prints JSON.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vovnet.errors import VovnetError
from vovnet.lab.measurement import Measurement, measured, not_measured
from vovnet.lab.target import Target, random_images
from vovnet.runtimes import RUNTIMES, Runner, open_onnx, open_runtime
from vovnet.runtimes.convert import FlatNetwork, write_onnx
from vovnet.shipped import is_model_file

_PASSES, _REPEATS = 2, 3
_SMALL = 32  # pixels; what the process runs first
_TIMEOUT = 600  # seconds; compiling a large network takes minutes
# The child imports what this process would: "-m" would look into the current folder first, where
# anything may lie that is called like a module.
_CHILD = (
    f"import sys; sys.path[:] = sys.argv.pop(1).split({os.pathsep!r}); import runpy; "
    "runpy.run_module('vovnet.lab.memory', run_name='__main__', alter_sys=True)"
)
_HOST = (
    "peak resident memory (VmHWM) of a fresh process during inference, above that process's after "
    "it had run a small network in the same runtime; weights included, conversion not"
)
_TORCH_CUDA = "torch.cuda.max_memory_allocated of a fresh process during inference, with weights"


def peak_memory(
    target: Target, batch: int, runtime: str, precision: str, device: str, threads: int
) -> Measurement:
    """Bytes that `target` takes in a runtime, from a child process that does nothing else.

    Not measured, with the reason, where the child fails, the network cannot be sent to it, or the
    runtime allocates where nobody counts.
    """
    # A CUDA graph takes its memory while it is recorded, and shows none of it when it runs.
    hidden = RUNTIMES[runtime].from_network is None or runtime == "cuda_graph"
    if not device.startswith("cpu") and hidden:
        return not_measured("byte", f"{runtime} allocates outside torch's counters", _TORCH_CUDA)
    method = _HOST if device == "cpu" else _TORCH_CUDA
    job = {"side": target.imgsz, "batch": batch, "runtime": runtime, "precision": precision}
    job |= {"device": device, "threads": threads}
    with tempfile.TemporaryDirectory(prefix="vovnet-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        try:
            small = _hand_over(nn.Conv2d(3, 8, 3), batch, _SMALL, runtime, folder / "small")
            path = target.onnx or _hand_over(
                target.network, batch, target.imgsz, runtime, folder / "network"
            )
        except Exception as error:  # a class or function that has no importable name, or no ONNX
            return not_measured("byte", f"the network cannot be sent to a process: {error}", method)
        return _in_a_child([folder / "job.json", small, path], method)


def _hand_over(network: nn.Module | None, batch: int, side: int, runtime: str, stem: Path) -> Path:
    """Write a network as the child should find it: as an ONNX file for runtimes that read those,
    so that what exporting leaves in memory is not counted, else as it is."""
    assert network is not None
    if RUNTIMES[runtime].from_onnx is None:
        with _deep_recursion():
            torch.save(network, stem.with_suffix(".pt"))
        return stem.with_suffix(".pt")
    example = random_images(batch, side, torch.device("cpu"))
    write_onnx(FlatNetwork(network).cpu(), example, stem.with_suffix(".onnx"))
    return stem.with_suffix(".onnx")


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """A traced graph is pickled node by node, each inside the one before: DenseNet-201 has 700."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _in_a_child(paths: list[Path], method: str) -> Measurement:
    command = [sys.executable, "-c", _CHILD, os.pathsep.join(sys.path), *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return not_measured("byte", f"the process took longer than {_TIMEOUT} s", method)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        why = lines[-1] if lines else f"the process ended with status {done.returncode}"
        return not_measured("byte", why, method)
    samples = json.loads(done.stdout.splitlines()[-1])
    return measured([[sample] for sample in samples], "byte", method)


def _run(job: dict[str, Any], small: Path, path: Path) -> list[int]:
    """The child's side: bytes at the peak of each repeat above the baseline."""
    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    # Loads the libraries and starts the threads, which are not the network's.
    with _open(small, {**job, "side": _SMALL}) as runner:
        runner(random_images(job["batch"], _SMALL, device))
    read, reset = _peak_here, _reset_here
    if device.type == "cuda":
        read = partial(torch.cuda.max_memory_allocated, device)
        reset = partial(torch.cuda.reset_peak_memory_stats, device)
    gc.collect()
    reset()
    baseline = read()
    runner = _open(path, job)
    gc.collect()
    images = random_images(job["batch"], job["side"], device)
    samples = []
    for _ in range(_REPEATS):
        reset()
        for _ in range(_PASSES):
            runner(images)
        samples.append(read() - baseline)
    return samples


def _open(path: Path, job: dict[str, Any]) -> Runner:
    """The runner of what `_hand_over` wrote, or of a user's ONNX file."""
    side, batch = job["side"], job["batch"]
    images = random_images(batch, side, torch.device("cpu"))
    options = {"device": job["device"], "threads": job["threads"], "calibration": [images]}
    what = job["runtime"], job["precision"]
    if is_model_file(path):
        return open_onnx(path, *what, batch=batch, image_size=(side, side), **options)
    # Written a moment ago by `peak_memory`: the network's own class has to come along.
    return open_runtime(torch.load(path, weights_only=False), images, *what, **options)


def _reset_here() -> None:
    """Give freed memory back to the system, then make the peak start from what is left."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _peak_here() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise VovnetError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    job_file, *networks = map(Path, sys.argv[1:])
    print(json.dumps(_run(json.loads(job_file.read_text()), *networks)))
