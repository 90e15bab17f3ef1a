"""Frames of video files, as displayed, by PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image

from vovnet.errors import ImageError, MissingExtraError
from vovnet.images import MAX_PIXELS
from vovnet.predict.row import Given, told
from vovnet.text import one_line

_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


class Shot(NamedTuple):
    """A frame as displayed, its number and seconds from the start, and the video's rate."""

    image: Image.Image
    number: int
    time: float
    rate: Fraction


def import_av() -> ModuleType:
    """PyAV, which the extra "video" brings; raises `MissingExtraError`."""
    try:
        import av
    except ImportError:
        raise MissingExtraError("av", "video", "a video") from None
    av.logging.set_level(av.logging.PANIC)  # its words are no part of ours
    return av


def read_video(given: Given, *, every: int = 1, start: int = 0) -> Iterator[Shot]:
    """Each `every`-th frame of a video, from frame `start` on, turned as phones say.

    Raises `ImageError` for what is no video; after the sound frames, for one that is damaged.
    """
    av = import_av()
    name, number = one_line(told(given)), -1
    try:
        with av.open(str(given)) as container:
            if not container.streams.video:
                raise ImageError(f"{name}: holds no video; check the file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            for number, frame in enumerate(container.decode(stream)):
                if number >= start and number % every == 0:
                    seconds = frame.time if frame.time is not None else number / rate
                    yield Shot(displayed(frame, name), number, round(float(seconds), 6), rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        where = f"is damaged after frame {number}" if number >= 0 else "is no readable video"
        raise ImageError(f"{name}: {where} ({reason}); check the file") from None
    if number < 0:
        raise ImageError(f"{name}: holds no frame; check the file")


def count_frames(given: Given) -> int | None:
    """How many frames a video file says that it has; None where it does not."""
    av = import_av()
    try:
        with av.open(str(given)) as container:
            return (container.streams.video[0].frames or None) if container.streams.video else None
    except (av.FFmpegError, OSError, ValueError):
        return None


def displayed(frame: Any, name: str) -> Image.Image:
    """A decoded frame as an RGB picture, turned the way it is displayed."""
    if frame.width * frame.height > MAX_PIXELS:
        raise ImageError(f"{name}: {frame.width}x{frame.height} is over {MAX_PIXELS / 1e6:g} MP")
    # to_image() takes new memory from the system for each frame, which costs more than the colours.
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = round(frame.rotation) % 360
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image
