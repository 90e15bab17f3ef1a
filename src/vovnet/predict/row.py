"""What one picture, or one frame of a video, came to."""

import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vovnet.detections import Detections

# A picture or a video as a file; or an address, a camera's number, "-" for standard input.
Given = Path | str


def told(given: Given) -> str:
    """A source as it is told and written down: without the password of an address."""
    name = str(given)
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", name) if "@" in name else name


class Row(NamedTuple):
    """One outcome: its detections, or the error that says why there are none.

    Both are there if the file was read but its annotated picture could not be written. `frame`
    counts from 0 within a video; `time` is its seconds from the start, of a live source those since
    1970.
    """

    path: Given
    detections: Detections | None
    error: str | None = None
    drawn: Path | None = None  # the annotated picture, or video
    frame: int | None = None
    time: float | None = None
    counts: dict[str, dict[str, int]] | None = None  # of what has crossed a line, by class
    image: Image.Image | None = None  # as displayed, where that was asked for

    def to_dict(self) -> dict:
        """What `vovnet predict --json` prints for this file."""
        row: dict = {"path": told(self.path)}
        if self.frame is not None:
            row |= {"frame": self.frame, "time": self.time}
        if self.detections is None:
            return row | {"error": self.error, "detections": []}
        height, width = self.detections.image_size or (None, None)
        if self.error is not None:
            row["error"] = self.error
        if self.counts is not None:
            row["counts"] = self.counts
        return row | {
            "height": height,
            "width": width,
            "annotated": str(self.drawn) if self.drawn else None,
            "detections": self.detections.to_dict(),
        }
