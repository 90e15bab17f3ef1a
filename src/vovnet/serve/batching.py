"""Pictures of several requests through the network at once."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from vovnet.detect.found import Found
from vovnet.detect.options import Options
from vovnet.errors import VovnetError, is_out_of_memory
from vovnet.serve.metrics import Metrics
from vovnet.serve.refusal import Refusal

STUCK = 120.0  # seconds after which a batch will never come back
Find = Callable[[np.ndarray, Options], Sequence[Found]]


@dataclass(frozen=True)
class Computed:
    """What the network found in one input, and the seconds that it waited and computed."""

    found: Found
    queue: float
    network: float


@dataclass(frozen=True, eq=False)
class _Job:
    pixels: np.ndarray
    how: Options
    answer: "asyncio.Future[Computed]"
    since: float


class Batcher:
    """A queue of prepared inputs before one thread that computes.

    Whatever waits when the network is free goes in together, up to `batch`. A batch that is not
    full waits up to `wait` seconds, but only while `coming()` says that a picture is on its way: a
    lone client never waits for others. Inputs go together only if their options are equal, so that
    each answer is the one that `detect` gives for that picture alone.
    """

    def __init__(
        self, find: Find, batch: int, wait: float, coming: Callable[[], int], metrics: Metrics
    ) -> None:
        self._find, self._batch, self._wait = find, batch, wait
        self._coming, self._metrics = coming, metrics
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "network")
        self._worker: asyncio.Task[None] | None = None
        self._computing_since: float | None = None
        self.seconds_an_image = 0.0  # as of late; 0 before the first

    def start(self) -> None:
        """Begin to compute, in the running loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End the thread; what still waits is given up."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def works(self) -> bool:
        """Whether what is put in will come out; not if a batch takes longer than any can."""
        since = self._computing_since
        stuck = since is not None and perf_counter() - since > STUCK
        return self._worker is not None and not self._worker.done() and not stuck

    def waiting(self) -> int:
        """Inputs before the network."""
        return self._jobs.qsize()

    async def find(self, pixels: np.ndarray, how: Options) -> Computed:
        """What the network finds in one prepared input H×W×3."""
        answer: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(pixels, how, answer, perf_counter()))
        return await answer

    async def _work(self) -> None:
        while True:
            groups: dict[Options, list[_Job]] = {}
            for job in await self._next():
                groups.setdefault(job.how, []).append(job)
            for how, group in groups.items():
                await self._compute(how, [job for job in group if not job.answer.done()])

    async def _next(self) -> list[_Job]:
        jobs = [await self._jobs.get()]
        until = perf_counter() + self._wait
        while len(jobs) < self._batch:
            if not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
                continue
            left = until - perf_counter()
            if left <= 0 or not self._coming():
                break
            try:
                jobs.append(await asyncio.wait_for(self._jobs.get(), left))
            except asyncio.TimeoutError:
                break
        return jobs

    async def _compute(self, how: Options, jobs: list[_Job]) -> None:
        if not jobs:  # their clients have given up
            return
        loop, started = asyncio.get_running_loop(), perf_counter()
        self._computing_since = started
        try:
            pixels = np.stack([job.pixels for job in jobs])
            found = await loop.run_in_executor(self._thread, self._find, pixels, how)
        except Exception as error:
            _fail(jobs, error)
            return
        finally:
            self._computing_since = None
        seconds = perf_counter() - started
        self._learn(seconds / len(jobs))
        self._metrics.batches.observe(len(jobs))
        for job, one in zip(jobs, found, strict=True):
            if not job.answer.done():
                job.answer.set_result(Computed(one, started - job.since, seconds))

    def _learn(self, seconds: float) -> None:
        known = self.seconds_an_image
        self.seconds_an_image = 0.9 * known + 0.1 * seconds if known else seconds


def _fail(jobs: list[_Job], error: Exception) -> None:
    """Tell all of a batch; nothing that the network raises is the client's fault."""
    if is_out_of_memory(error):
        error = Refusal(503, "memory", "out of memory; send smaller or fewer pictures")
    elif isinstance(error, VovnetError):
        error = RuntimeError(str(error))
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
