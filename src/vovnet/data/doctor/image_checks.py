"""Faults of single images: each check is a function of what is annotated and what the file is."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vovnet.data.doctor.probe import Facts
from vovnet.data.frame import Frame, Size, find_frame
from vovnet.data.raw import RawImage
from vovnet.images import FORMATS

_LEAST_SIDE = 16
_MOST_OBJECTS = 300
_PLAIN = ("RGB", "L", "1")
_SOFT = ("P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX")  # a palette or transparency

Faults = Iterator[tuple[str, str]]  # id of the finding, and what is wrong


class Pictured(NamedTuple):
    """An image as annotated, and the facts of its file where there is one."""

    image: RawImage
    facts: Facts | None

    @property
    def frame(self) -> Frame | None:
        """Where its boxes are drawn; None where the sizes disagree or none is known."""
        header = self.facts.header if self.facts else None
        given = self.image.size
        if header is None:
            return None if given is None else Frame(given)
        return find_frame(given, header)

    @property
    def box_size(self) -> Size | None:
        """The (height, width) that its boxes are drawn in."""
        if self.image.size is not None or self.frame is None:
            return self.image.size
        return self.frame.size


def _file(pictured: Pictured) -> Faults:
    if pictured.image.path is None:
        yield "VD101", "no such file"
    elif pictured.facts and pictured.facts.fault:
        yield pictured.facts.fault


def _size(pictured: Pictured) -> Faults:
    header = pictured.facts.header if pictured.facts else None
    if header is None:
        return
    if pictured.frame is None:
        (height, width), (true_height, true_width) = pictured.image.size or (0, 0), header.size
        yield "VD106", f"says {width}x{height}, is {true_width}x{true_height}"
    elif pictured.frame.orientation != 1:
        masks = any(box.mask for box in pictured.image.boxes)
        yield "VD107" if masks else "VD108", f"EXIF orientation {header.orientation}"
    elif header.orientation != 1:
        yield "VD109", f"EXIF orientation {header.orientation}"
    if min(header.size) < _LEAST_SIDE:
        yield "VD114", f"{header.size[1]}x{header.size[0]}"


def _format(pictured: Pictured) -> Faults:
    path, facts = pictured.image.path, pictured.facts
    if path is None or facts is None or facts.header is None:
        return
    if path.suffix.lower() not in _suffixes(facts.format):
        yield "VD110", f"{facts.format} called {path.suffix}"
    if facts.mode in _SOFT:
        yield "VD112", f"mode {facts.mode}"
    elif facts.depth or facts.mode not in _PLAIN:
        yield "VD111", facts.depth or f"mode {facts.mode}"
    if facts.animated:
        yield "VD113", f"animated {facts.format}"


def _suffixes(format_: str) -> tuple[str, ...]:
    return FORMATS["JPEG"] if format_ == "MPO" else FORMATS.get(format_, ())


def _objects(pictured: Pictured) -> Faults:
    image, count = pictured.image, len(pictured.image.boxes)
    annotated = image.annotation is not None or image.source is not None  # else told as VD606
    if count == 0 and annotated:
        yield "VD116", "no object"
    elif count > _MOST_OBJECTS:
        yield "VD118", f"{count} objects"


IMAGE_CHECKS: tuple[Callable[[Pictured], Faults], ...] = (_file, _size, _format, _objects)
