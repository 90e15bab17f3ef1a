"""From the pictures of a request to what is found in them: decoded, batched, computed, told."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from vovnet.detect.found import Found
from vovnet.detect.options import Options
from vovnet.detect.pictures import Picture, to_pictures
from vovnet.detect.run import AnyDetector
from vovnet.errors import is_out_of_memory
from vovnet.images import decode_image
from vovnet.input_spec import Placement
from vovnet.limits import usable_cores
from vovnet.serve.batching import Batcher
from vovnet.serve.limits import Limits
from vovnet.serve.metrics import Metrics
from vovnet.serve.refusal import Refusal

_Result = TypeVar("_Result")
_DECODERS = 4  # at most; each may hold a whole picture


@dataclass(frozen=True)
class Upload:
    """One picture of a request: the bytes of a file, or pixels H×W×3 uint8; `name` for errors."""

    data: bytes | np.ndarray
    name: str = "image"


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found in one picture, still in the input's pixels, and the stages' seconds."""

    found: Found
    place: Placement
    decode: float
    queue: float
    network: float


class Service:
    """A detector that many clients share, within `limits`."""

    def __init__(self, detector: AnyDetector, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self.draining = False  # told to stop: answers what comes, and is not ready for more
        self._accepted = self._coming = self._bodies = 0
        self.metrics = Metrics(lambda: self._batcher.waiting(), lambda: self._accepted)
        self._batcher = Batcher(
            detector.find, limits.batch, limits.wait_ms / 1e3, lambda: self._coming, self.metrics
        )
        self._pool = ThreadPoolExecutor(min(_DECODERS, usable_cores()), "decode")

    def warm_up(self) -> None:
        """Compute once alone and once a full batch: some runtimes plan at the first of a size."""
        for count in {1, self.limits.batch}:
            blank = np.zeros((count, *self.detector.input_spec.size, 3), np.uint8)
            self.detector.find(blank, Options())

    def start(self) -> None:
        """Take pictures, in the running loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """End all threads."""
        await self._batcher.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def works(self) -> bool:
        """Whether it computes; it never recovers from not doing so."""
        return self._batcher.works

    @property
    def ready(self) -> bool:
        """Whether new clients should come here."""
        return self.works and not self.draining

    async def in_time(
        self, work: Coroutine[Any, Any, _Result], gone: Coroutine[Any, Any, None]
    ) -> _Result:
        """The result of a request's work, timed; refuses what takes longer than the limit.

        `gone` ends when the client leaves: then nobody waits for the answer, and work that is not
        begun is given up, so that clients who ask again do not find the queue full of the past.
        """
        started = perf_counter()
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
        both = (working, leaving)
        try:
            await asyncio.wait(
                both, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if working.done():
                result = working.result()
                self.metrics.observe("total", perf_counter() - started)
                return result
            if leaving.done():
                raise Refusal(499, "gone", "the client left before it was answered")
            seconds = f"{self.limits.timeout:g} s"
            message = f"not answered within {seconds}; send fewer pictures at a time, or later"
            raise Refusal(504, "timeout", message)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """While a body arrives and is parsed: as many at a time as pictures are accepted, for the
        sake of memory."""
        if self._bodies >= self.limits.queue:
            message = f"{self._bodies} others are sending already; try again in 1 s"
            headers = {"Retry-After": "1", "Connection": "close"}
            raise Refusal(503, "full", message, headers)
        self._bodies += 1
        try:
            yield
        finally:
            self._bodies -= 1

    @contextmanager
    def room(self, count: int) -> Generator[None, None, None]:
        """A place for each of a request's pictures, from here until it is answered."""
        most = self.limits.queue
        if count > most:
            message = f"{count} pictures; send at most {most} in a request"
            raise Refusal(413, "too_large", message)
        if self._accepted + count > most:
            wait = max(1, math.ceil(self._accepted * self._batcher.seconds_an_image))
            message = f"{self._accepted} pictures wait already; try again in {wait} s"
            raise Refusal(503, "full", message, {"Retry-After": str(wait)})
        self._accepted += count
        try:
            yield
        finally:
            self._accepted -= count

    async def detect(self, uploads: Sequence[Upload], how: Options) -> list[Seen]:
        """What is found in each of a request's pictures; raises `ImageError` if one is none."""
        tasks = [asyncio.ensure_future(self._one(upload, how)) for upload in uploads]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # one that fails takes the others with it
                task.cancel()

    async def in_thread(self, call: Callable[..., _Result], *arguments: Any) -> _Result:
        """The result of what would keep the loop from its clients."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, call, *arguments)
        except Exception as error:
            if is_out_of_memory(error):
                message = "out of memory; send smaller or fewer pictures"
                raise Refusal(503, "memory", message) from error
            raise

    async def _one(self, upload: Upload, how: Options) -> Seen:
        accepted = perf_counter()
        self._coming += 1
        try:
            pixels, place, decode = await self.in_thread(self._prepare, upload)
            waited = perf_counter() - accepted - decode
        finally:
            self._coming -= 1
        computed = await self._batcher.find(pixels, how)
        seen = Seen(computed.found, place, decode, waited + computed.queue, computed.network)
        for stage in ("decode", "queue", "network"):
            self.metrics.observe(stage, getattr(seen, stage))
        self.metrics.images.inc()
        return seen

    def _prepare(self, upload: Upload) -> tuple[np.ndarray, Placement, float]:
        started = perf_counter()
        spec = self.detector.input_spec
        picture = self.open(upload, shrink_to=max(spec.size))
        return *spec.prepare(picture.image, picture.size), perf_counter() - started

    def open(self, upload: Upload, shrink_to: int | None = None) -> Picture:
        """The picture of an upload, as `detect` sees it; raises `ImageError`."""
        if isinstance(upload.data, np.ndarray):
            return to_pictures(upload.data)[0][0]
        most = self.limits.max_pixels
        return Picture(
            *decode_image(upload.data, upload.name, max_pixels=most, shrink_to=shrink_to)
        )
