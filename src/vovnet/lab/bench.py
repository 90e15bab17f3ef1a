"""Measure networks against each other on this machine: `vovnet bench`.

All competitors are opened first. Then come rounds: in each, every competitor has a window of a
fixed duration, in an order that turns with the round, and just before it a float32 matrix product
and a memory copy are timed, so that whatever drifts (clocks, temperature, neighbours) hits all
alike and shows. A competitor that fails keeps its row, with the reason; the others go on.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import product
from typing import Any, cast

import torch
from torch import nn

from vovnet.device import threads_used, usable_device
from vovnet.environment import environment
from vovnet.errors import UnknownNameError, VovnetError, is_out_of_memory
from vovnet.lab.competitor import Competitor, Job, Loaded, same_but_runtime
from vovnet.lab.conditions import conditions
from vovnet.lab.correct import BOUNDS
from vovnet.lab.energy import Meter, idle_watts, open_meter
from vovnet.lab.measurement import Measurement, measured, not_measured
from vovnet.lab.memory import peak_memory
from vovnet.lab.results import SECOND_STAGE, Machine, failed_row, finished_row
from vovnet.lab.roofline import Roofs
from vovnet.lab.row import BenchRow
from vovnet.lab.target import Target, open_target, random_images, reference_outputs
from vovnet.runtimes import RUNTIMES, Precision

Note = Callable[[str], None]


@dataclass(frozen=True)
class Protocol:
    """How long to measure: `repeats` rounds of windows of `seconds`, after `warmup` seconds.

    `settling` seconds before every window are not counted. `threads` is for every runtime
    (default: torch's number). `memory` costs a process for each row; `stages` (detectors only)
    half a window more; `energy` an idle measurement, and windows long enough for the counter.
    """

    seconds: float = 1.0
    repeats: int = 5
    warmup: float = 0.5
    settling: float = 0.1
    threads: int | None = None
    memory: bool = True
    stages: bool = True
    energy: bool = True

    def __post_init__(self) -> None:
        threads = 1 if self.threads is None else self.threads
        if not (self.seconds > 0 and self.repeats >= 1 and threads >= 1):
            raise VovnetError(
                f"--seconds {self.seconds} --repeats {self.repeats} --threads {self.threads}: "
                "must be above 0, at least 1 and at least 1"
            )


def bench(
    names: Sequence[str],
    *,
    imgsz: int | None = None,
    num_classes: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    runtimes: Sequence[str] = ("eager",),
    precisions: Sequence[str] = ("fp32",),
    protocol: Protocol | None = None,
    note: Note = lambda line: None,
) -> list[BenchRow]:
    """One row for every model × runtime × precision that there is, in that order.

    A runtime without one of several precisions has no row for it; without any, its rows fail.
    Names are what `open_target` takes. `note` is told what goes on. Raises `VovnetError` for
    what no row could be made of: an unknown runtime or precision, a batch below 1.
    """
    jobs = _jobs(names, imgsz, num_classes, batch, device, runtimes, precisions)
    return bench_jobs(jobs, protocol, note=note)


def bench_module(
    network: nn.Module,
    name: str = "module",
    *,
    imgsz: int = 224,
    batch: int = 1,
    device: str = "cpu",
    runtimes: Sequence[str] = ("eager",),
    precisions: Sequence[str] = ("fp32",),
    protocol: Protocol | None = None,
    note: Note = lambda line: None,
) -> list[BenchRow]:
    """The same for a network of the caller's, which takes N×3×imgsz×imgsz in eval mode.

    Works on a copy. Its peak memory can be measured if its class can be imported by name.
    """
    jobs = _jobs([name], imgsz, None, batch, device, runtimes, precisions)
    own = {name: Target(name, imgsz, network=copy.deepcopy(network).eval())}
    return bench_jobs(jobs, protocol, own=own, note=note)


def bench_jobs(
    jobs: Sequence[Job],
    protocol: Protocol | None = None,
    *,
    own: dict[str, Target] | None = None,
    note: Note = lambda line: None,
) -> list[BenchRow]:
    """One row a job, in order, all on the device of the first; `own` targets win over names."""
    protocol = protocol or Protocol()
    with threads_used(protocol.threads) as threads, _as_deployed():
        run = _Run(protocol, threads, own or {}, note)
        run.open(jobs)
        run.rounds()
        return run.rows(jobs)


def _jobs(
    names: Sequence[str],
    imgsz: int | None,
    num_classes: int | None,
    batch: int,
    device: str,
    runtimes: Sequence[str],
    precisions: Sequence[str],
) -> list[Job]:
    for kind, given, known in (
        ("runtime", runtimes, RUNTIMES),
        ("precision", precisions, BOUNDS),
    ):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if batch < 1:
        raise VovnetError(f"--batch {batch}: must be at least 1")
    ways = [(runtime, p) for runtime in runtimes for p in _offered(runtime, precisions, device)]
    return [
        Job(name, imgsz, num_classes, batch, device, runtime, cast(Precision, precision))
        for name, (runtime, precision) in product(names, ways)
    ]


def _offered(runtime: str, precisions: Sequence[str], device: str) -> list[str]:
    """Those of the precisions that the runtime has on a device; all of them, to fail one by one
    with the reason, if it has none. Asking for several is asking for what there is."""
    there = RUNTIMES[runtime].precisions.get(device.partition(":")[0], ())
    return [p for p in precisions if p in there] or list(precisions)


@contextmanager
def _as_deployed() -> Iterator[None]:
    """cuDNN chooses the fastest kernels for each shape, as a service would have it do, and float32
    is float32: on its own, torch lets a GPU's convolutions round to TF32."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = True, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


class _Run:
    """One bench: what was opened, what failed, and what the machine itself gave."""

    def __init__(
        self, protocol: Protocol, threads: int, own: dict[str, Target], note: Note
    ) -> None:
        self.protocol, self.threads, self.own, self.note = protocol, threads, own, note
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.loaded: dict[tuple[object, ...], Loaded | str] = {}
        self.competitors: dict[Job, Competitor] = {}
        self.errors: dict[Job, str] = {}
        self.meter: Meter | None = None
        self.idle: Measurement = not_measured("W", "energy is not part of this run")
        self.roofs: Roofs | None = None
        self.matmul: list[list[float]] = []  # FLOP/s, one list a round
        self.copied: list[list[float]] = []  # bytes/s
        self.before: dict[str, float | None] | None = None
        self.after: dict[str, float | None] | None = None

    def open(self, jobs: Sequence[Job]) -> None:
        """Open every competitor that can be opened; the reasons of the others go to `errors`."""
        for number, job in enumerate(dict.fromkeys(jobs), 1):
            self.note(f"opening {number}/{len(jobs)}: {_words(job)}")
            try:
                loaded = self._load(job)
                self.competitors[job] = Competitor(
                    job, loaded, self.threads, stages=self.protocol.stages
                )
            except Exception as error:  # a stranger's network may raise anything
                self._fail(job, error)

    def rounds(self) -> None:
        """Warm up, then give every competitor its windows."""
        if not self.competitors:
            return
        device = next(iter(self.competitors.values())).runner.device
        # What times a GPU is told to the current one.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self._rounds_on(device)

    def _rounds_on(self, device: torch.device) -> None:
        roofs = self.roofs = Roofs(device)
        self._open_meter(device)
        for job, competitor in list(self.competitors.items()):
            self._guarded(job, competitor.warm_up, self.protocol.warmup)
        self.before = conditions(device, self.meter)
        for number in range(self.protocol.repeats):
            self.note(f"round {number + 1}/{self.protocol.repeats}")
            if self.competitors:
                self._round(number, roofs)
        self.after = conditions(device, self.meter)

    def _round(self, number: int, roofs: Roofs) -> None:
        turn = list(self.competitors.items())
        shift = number % len(turn)
        self.matmul.append([])
        self.copied.append([])
        for job, competitor in turn[shift:] + turn[:shift]:
            matmul, copied = roofs.sample()
            self.matmul[-1] += matmul
            self.copied[-1] += copied
            competitor.samples.matmul.append(matmul)
            seconds, settling = self.protocol.seconds, self.protocol.settling
            self._guarded(job, competitor.take_turn, seconds, settling, self.meter)

    def rows(self, jobs: Sequence[Job]) -> list[BenchRow]:
        """The rows, after peak memory was measured while nothing else runs."""
        rows = []
        machine = self._machine()
        for number, job in enumerate(jobs, 1):
            if job in self.errors:
                rows.append(failed_row(job, self._target(job), self.errors[job], machine))
                continue
            competitor = self.competitors[job]
            row = finished_row(competitor, machine)
            competitor.runner.close()
            if self.protocol.memory:
                self.note(f"peak memory {number}/{len(jobs)}: {_words(job)}")
                row = replace(row, peak_memory_bytes=self._memory(competitor))
            rows.append(row)
        return rows

    def _load(self, job: Job) -> Loaded:
        key = same_but_runtime(job)
        if key not in self.loaded:
            try:
                self.loaded[key] = self._read(job)
            except Exception as error:  # tried once, told for every runtime
                self.loaded[key] = one_line(error)
        loaded = self.loaded[key]
        if isinstance(loaded, str):
            raise VovnetError(loaded)
        return loaded

    def _read(self, job: Job) -> Loaded:
        device = usable_device(job.device)
        target = self.own.get(job.model) or open_target(job.model, job.imgsz, job.num_classes)
        images = random_images(job.batch, target.imgsz, device)
        if target.network is None:
            return Loaded(target, images)
        return Loaded(target, images, *reference_outputs(target.network, images))

    def _target(self, job: Job) -> Target | None:
        loaded = self.loaded.get(same_but_runtime(job))
        return loaded.target if isinstance(loaded, Loaded) else None

    def _guarded(self, job: Job, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except Exception as error:  # as in `open`
            self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        self.errors[job] = one_line(error)
        self.note(f"{_words(job)}: {self.errors[job]}")
        competitor = self.competitors.pop(job, None)
        if competitor is not None:
            competitor.runner.close()

    def _open_meter(self, device: torch.device) -> None:
        if not self.protocol.energy:
            return
        try:
            self.meter = open_meter(device)
            self.note("idle power")
            watts = idle_watts(self.meter)
        except VovnetError as error:
            self.idle = not_measured("W", str(error))
            return
        method = f"{self.meter.method}; before the run, every model loaded and none running"
        self.idle = measured([[sample] for sample in watts], "W", method)

    def _memory(self, competitor: Competitor) -> Measurement:
        job = competitor.job
        if competitor.target.two_stages:
            return not_measured("byte", SECOND_STAGE)
        return peak_memory(
            competitor.target, job.batch, job.runtime, job.precision, job.device, self.threads
        )

    def _machine(self) -> Machine:
        protocol = self.protocol
        words = (
            f"{protocol.repeats} windows of {protocol.seconds:g} s each after "
            f"{protocol.settling:g} s unmeasured, competitors in turn, {self.threads} threads"
        )
        shared = Machine(environment(), self.started, words)
        if self.roofs is None or not self.matmul:
            return shared
        return replace(
            shared,
            matmul=measured(self.matmul, "FLOP/s", f"{self.roofs.matmul}, before every window"),
            copy=measured(self.copied, "byte/s", f"{self.roofs.copy}, before every window"),
            idle=self.idle,
            meter=self.meter.method if self.meter else "",
            least_seconds=self.meter.least_seconds if self.meter else 0.0,
            conditions={"before": self.before, "after": self.after},
        )


def one_line(error: Exception) -> str:
    """What went wrong, on one line: our errors as they are, others with their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, VovnetError):
        return text
    if is_out_of_memory(error):
        return "out of memory; lower --batch or --imgsz"
    return f"{type(error).__name__}: {text}"[:300]


def _words(job: Job) -> str:
    return f"{job.model} {job.runtime} {job.precision}"
