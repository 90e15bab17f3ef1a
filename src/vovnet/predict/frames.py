"""Every picture that sources give, one after the other, decoded."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from vovnet.detect.pictures import Picture
from vovnet.errors import VovnetError
from vovnet.images import decode_image, open_image
from vovnet.predict.kinds import Kind, kind_of
from vovnet.predict.row import Given, told

STDIN = "-"


class Frame(NamedTuple):
    """A picture as the network sees it and the one to draw on, or what hinders it.

    `video` says that it is of one, where `end` comes after the last frame, and holds no picture;
    `skipped` is what an earlier run has done. `rate` is the video's, in frames a second.
    """

    path: Given
    seen: Picture | None = None
    whole: Image.Image | None = None
    error: str | None = None
    number: int | None = None
    time: float | None = None
    rate: Fraction | None = None
    video: bool = False
    end: bool = False
    skipped: bool = False


def _nothing_done(given: Given) -> bool:
    return False


def _from_the_start(given: Given) -> int:
    return 0


def _all(given: Given) -> bool:
    return True


@dataclass(frozen=True)
class Reading:
    """How sources are read: JPEG files shrunk to `side` (None: whole), with the `whole` picture
    beside, each `every`-th frame of a video. `done` says, and notes, that an earlier run has done
    this one; `start` is the first frame of a video that it has not. `mine` says which lines of
    standard input are taken at all."""

    side: int | None = None
    whole: bool = False
    every: int = 1
    done: Callable[[Given], bool] = _nothing_done
    start: Callable[[Given], int] = _from_the_start
    mine: Callable[[Given], bool] = _all


def frames_of(sources: Iterable[Given], how: Reading) -> Iterator[Frame]:
    """The frames of pictures, videos and what standard input names; of live sources none."""
    for given in sources:
        if given == STDIN:
            yield from frames_of(filter(how.mine, read_names(sys.stdin.fileno())), how)
            continue
        kind = kind_of(given)
        if how.done(given):
            yield Frame(given, skipped=True)
        elif kind is Kind.VIDEO:
            yield from _video(given, how)
        elif kind is Kind.WEB:
            yield from _from_web(str(given), how)
        elif kind is Kind.LIVE:
            yield Frame(
                given, error=f"{told(given)}: live, so it is no line of a list; name it itself"
            )
        else:
            yield open_picture(Path(given), how)


def open_picture(path: Path, how: Reading) -> Frame:
    """The only frame of a picture's file, or what is wrong with it."""
    try:
        seen, size = open_image(path, shrink_to=how.side)
        again = how.whole and (seen.height, seen.width) != size
        return Frame(path, Picture(seen, size, path), open_image(path)[0] if again else seen)
    except VovnetError as error:
        return Frame(path, error=str(error))


def _from_web(address: str, how: Reading) -> Iterator[Frame]:
    from vovnet.predict.web import fetch

    try:
        data = fetch(address)
        if data is None:  # the server calls it a video
            yield from _video(address, how)
            return
        seen, size = decode_image(data, told(address), shrink_to=how.side)
        again = how.whole and (seen.height, seen.width) != size
        whole = decode_image(data, told(address))[0] if again else seen
        yield Frame(address, Picture(seen, size), whole)
    except VovnetError as error:
        yield Frame(address, error=str(error))


def _video(given: Given, how: Reading) -> Iterator[Frame]:
    """The frames of a video, what damages it included, and its end."""
    from vovnet.predict.video import read_video

    try:
        for shot in read_video(given, every=how.every, start=how.start(given)):
            path = given if isinstance(given, Path) else None
            seen = Picture(shot.image, (shot.image.height, shot.image.width), path)
            yield Frame(given, seen, shot.image, None, shot.number, shot.time, shot.rate, True)
    except VovnetError as error:
        yield Frame(given, error=str(error), video=True)
    yield Frame(given, video=True, end=True)


def read_names(descriptor: int) -> Iterator[Given]:
    """The lines that come in, each as soon as it is there; empty ones are left out.

    Read without Python's buffer, whose lock a waiting thread would hold when the program ends.
    """
    rest = b""
    while block := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + block).split(b"\n")
        yield from _named(lines)
    yield from _named([rest])


def names_in(file: BinaryIO) -> list[Given]:
    """The lines of a file, without the empty ones."""
    return list(_named(file.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")))


def _named(lines: Iterable[bytes]) -> Iterator[Given]:
    for line in lines:
        if name := os.fsdecode(line.rstrip(b"\r")).strip():
            yield name if kind_of(name) in (Kind.WEB, Kind.LIVE) else Path(name)
