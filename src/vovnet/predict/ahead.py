"""Work done before its turn, in a thread."""

from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_TICK = 0.1  # seconds after which a full queue is looked at again
_END = object()


class Ahead(Generic[T]):
    """Runs an iterator in a thread of its own, `room` items ahead and no more.

    The thread starts with the first item asked for. A daemon: it may wait for a network, or for
    standard input, when nobody wants its items any more.
    """

    def __init__(self, items: Iterable[T], room: int) -> None:
        self._items = items
        self._queue: Queue[Any] = Queue(room)
        self._stop = Event()

    def batches(self, size: int, *, patient: bool = True) -> Iterator[list[T]]:
        """The items in lists of `size`; unless `patient`, fewer where the next has to be waited
        for. An error of the iterator is raised in its turn."""
        Thread(target=self._run, daemon=True).start()
        try:
            more = True
            while more:
                batch, more = self._batch(size, patient)
                if batch:
                    yield batch
                if isinstance(more, BaseException):
                    raise more
        finally:
            self._stop.set()

    def _batch(self, size: int, patient: bool) -> tuple[list[T], Any]:
        batch: list[T] = []
        while len(batch) < size:
            try:
                item, error = self._queue.get(block=patient or not batch)
            except Empty:
                break
            if item is _END:
                return batch, error
            batch.append(item)
        return batch, True

    def _run(self) -> None:
        items, end = iter(self._items), None
        try:
            for item in items:
                if not self._put((item, None)):
                    break
        except BaseException as error:  # the other thread raises it
            end = error
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()
        self._put((_END, end))

    def _put(self, what: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(what, timeout=_TICK)
            except Full:
                continue
            return True
        return False
