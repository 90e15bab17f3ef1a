"""Cameras and network streams: the newest frames, whatever happens to the connection."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Any, NamedTuple

from vovnet.detect.pictures import Picture
from vovnet.errors import ImageError, VovnetError
from vovnet.predict.frames import Frame
from vovnet.predict.kinds import is_camera
from vovnet.predict.row import told
from vovnet.predict.video import displayed, import_av
from vovnet.text import one_line

_WAITS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each try to connect again
_ROOM = 32  # frames that wait where all are kept
_TIMEOUT = (10.0, 10.0)  # seconds to connect, and for a frame


class _Shot(NamedTuple):
    frame: Any  # as decoded; only those that are taken become RGB
    number: int
    time: float


class _Camera:
    """One source, read in a thread of its own into a queue that holds the newest frame, or all."""

    def __init__(self, source: str, owner: "Live") -> None:
        self.source, self._owner = source, owner
        self.waiting: deque[_Shot] = deque()
        self.error: str | None = None  # why it never began
        self.read = self.dropped = 0
        self._last = 0.0
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        tries = 0
        while not self._owner.stopped.is_set():
            before = self.read
            try:
                self._connect()
                reason = "it has ended"
            except Exception as error:  # a library's, of many kinds; the next try may do
                reason = one_line(getattr(error, "strerror", None) or error)
                if not self.read:
                    self._fail(reason, known=isinstance(error, VovnetError))
                    return
            if self._owner.stopped.is_set():
                return
            tries = 0 if self.read > before else tries
            wait = _WAITS[min(tries, len(_WAITS) - 1)] * self._owner.patience
            tries += 1
            self._owner.tell(f"{one_line(told(self.source))}: lost ({reason}); again in {wait:g} s")
            self._owner.stopped.wait(wait)

    def _fail(self, reason: str, *, known: bool) -> None:
        why = f"{one_line(told(self.source))}: cannot be opened ({reason}); check it, or the camera"
        with self._owner.fresh:
            self.error = reason if known else why
            self._owner.fresh.notify_all()

    def _connect(self) -> None:
        """Read until the source ends; raises whatever goes wrong."""
        av = import_av()
        with _opened(av, self.source) as container:
            if not container.streams.video:
                raise ImageError(
                    f"{one_line(told(self.source))}: holds no video; check the address"
                )
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                if self._owner.stopped.is_set():
                    return
                self._put(frame)

    def _put(self, frame: Any) -> None:
        owner, now = self._owner, time.time()
        number, self.read = self.read, self.read + 1
        if owner.interval and now - self._last < owner.interval:
            return
        self._last = now
        with owner.fresh:
            if owner.keep_all:
                owner.fresh.wait_for(lambda: len(self.waiting) < _ROOM or owner.stopped.is_set())
            else:
                self.dropped += len(self.waiting)
                self.waiting.clear()
            self.waiting.append(_Shot(frame, number, round(now, 3)))
            owner.fresh.notify_all()


class Live:
    """Live sources beside each other. Frames come as they arise, of each source the newest unless
    `keep_all`, at most `max_fps` a second; `tell` is told what is lost, found again and dropped.

    A source that cannot be opened at first is an error; one that is lost later is tried again for
    ever, the waits `patience` times as long. Numbers count all frames that were read, those dropped
    too.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        keep_all: bool = False,
        max_fps: float | None = None,
        tell: Callable[[str], None] = lambda line: None,
        patience: float = 1.0,
    ) -> None:
        import_av()
        self.keep_all, self.tell, self.patience = keep_all, tell, patience
        self.interval = 1 / max_fps if max_fps else 0.0
        self.fresh = Condition()
        self.stopped = Event()
        self._cameras = [_Camera(source, self) for source in sources]

    def __enter__(self) -> "Live":
        for camera in self._cameras:
            camera.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        with self.fresh:
            self.fresh.notify_all()
        for camera in self._cameras:
            camera.thread.join(0.5)
            if camera.read:
                name = one_line(told(camera.source))
                self.tell(f"{name}: {camera.read} frames, {camera.dropped} dropped")

    @property
    def dropped(self) -> int:
        """How many frames newer ones have taken the place of."""
        return sum(camera.dropped for camera in self._cameras)

    def batches(self, size: int) -> Iterator[list[Frame]]:
        """Up to `size` frames that are there, in turn from all sources; ends when none is left."""
        live = list(self._cameras)
        while live:
            with self.fresh:
                while not any(camera.waiting or camera.error for camera in live):
                    self.fresh.wait(1.0)
                taken = self._take(live, size)
                failed = [camera for camera in live if camera.error and not camera.waiting]
                live = [camera for camera in live if camera not in failed]
                self.fresh.notify_all()
            frames = [_frame(camera, shot) for camera, shot in taken]
            frames += [Frame(camera.source, error=camera.error, video=True) for camera in failed]
            if frames:
                yield frames

    def _take(self, cameras: list[_Camera], size: int) -> list[tuple[_Camera, _Shot]]:
        taken: list[tuple[_Camera, _Shot]] = []
        while len(taken) < size and any(camera.waiting for camera in cameras):
            for camera in cameras:
                if camera.waiting and len(taken) < size:
                    taken.append((camera, camera.waiting.popleft()))
            cameras.append(cameras.pop(0))  # the next batch begins with another
        return taken


def _frame(camera: _Camera, shot: _Shot) -> Frame:
    try:
        image = displayed(shot.frame, one_line(told(camera.source)))
    except VovnetError as error:
        return Frame(camera.source, error=str(error), video=True)
    seen = Picture(image, (image.height, image.width))
    return Frame(camera.source, seen, image, None, shot.number, shot.time, None, True)


def _opened(av: Any, source: str) -> Any:
    """PyAV's container of a camera or an address, with what keeps it from waiting for ever."""
    if is_camera(source):
        if sys.platform == "darwin":
            return av.open(source, format="avfoundation", options={"framerate": "30"})
        path = f"/dev/video{source}" if source.isdecimal() else source
        return av.open(path, format="v4l2")
    options = {}
    if source.lower().startswith("rtsp"):
        options = {"rtsp_transport": "tcp"}
    elif source.lower().startswith("http"):
        options = {"fflags": "nobuffer"}
    return av.open(source, options=options, timeout=_TIMEOUT)
