"""Annotated frames as an H.264 video in MP4, by PyAV."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from vovnet.errors import VovnetError
from vovnet.predict.video import import_av

_FINE = 512  # ticks of a frame: of a rate that varies, times are kept to so much of a frame
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")


class VideoFile:
    """A video that takes its name when it is closed; until then it is NAME.part.

    `live` writes it in fragments, so that it can be played even if this process was killed.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        *,
        replace: bool,
        live: bool = False,
    ) -> None:
        self.path, self._replace = path, replace
        self._part = path.with_name(f".{path.name}.part")
        self._av = import_av()
        self._size = size
        self._tick = 1 / (rate * _FINE)
        self._first: float | None = None
        self._last = -1
        fragments = {"movflags": "frag_keyframe+empty_moov"} if live else {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._av.open(str(self._part), "w", format="mp4", options=fragments)
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from None
        encoder = next(name for name in _ENCODERS if name in self._av.codecs_available)
        self._stream: Any = self._file.add_stream(encoder, rate=rate)
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._tick

    def add(self, image: Image.Image, seconds: float) -> None:
        """Append a frame; one of another size than the first is fitted to it."""
        if image.size != self._size:
            image = image.resize(self._size)
        width, height = self._stream.width, self._stream.height
        if (width, height) != image.size:  # H.264 counts by twos: the last line stands twice
            padded = image.crop((0, 0, width, height))
            padded.paste(image, (width - image.width, height - image.height))
            padded.paste(image, (0, 0))
            image = padded
        frame = self._av.VideoFrame.from_image(image)
        self._first = seconds if self._first is None else self._first
        self._last = max(self._last + 1, round((seconds - self._first) / self._tick))
        frame.pts, frame.time_base = self._last, self._tick
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Finish the video and give it its name."""
        try:
            self._mux(None)
            self._file.close()
            if not self._replace:  # takes the name, which fails if another has it
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
            os.replace(self._part, self.path)
        except (self._av.FFmpegError, OSError) as error:
            raise self._failed(error) from None

    def drop(self) -> None:
        """Leave nothing of it."""
        with suppress(Exception):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()

    def _failed(self, error: Exception) -> VovnetError:
        reason = getattr(error, "strerror", None) or error
        return VovnetError(f"{self.path}: cannot write: {reason}")
