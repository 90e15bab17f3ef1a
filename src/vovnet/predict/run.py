"""Files through a detector, one row per file, the bad ones with their reason."""

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vovnet.data.images import open_image
from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.files import write_atomically
from vovnet.models.detector import Detector
from vovnet.predict.draw import draw_detections

_AHEAD = 2  # images decoded before their turn
_Opened = tuple[Image.Image, tuple[int, int]]  # the picture and its (height, width) when whole


class Row(NamedTuple):
    """One file's outcome: its detections, or the error that says why there are none.

    Both are there if the file was read but its annotated picture could not be written.
    """

    path: Path
    detections: Detections | None
    error: str | None = None
    drawn: Path | None = None  # the annotated picture

    def to_dict(self) -> dict:
        """What `vovnet predict --json` prints for this file."""
        row: dict = {"path": str(self.path)}
        if self.detections is None:
            return row | {"error": self.error, "detections": []}
        height, width = self.detections.image_size or (None, None)
        if self.error is not None:
            row["error"] = self.error
        return row | {
            "height": height,
            "width": width,
            "annotated": str(self.drawn) if self.drawn else None,
            "detections": self.detections.to_dict(),
        }


def predict_files(
    detector: Detector,
    paths: Iterable[Path],
    *,
    conf: float = 0.25,
    iou: float = 0.6,
    out: Path | None = None,
) -> Iterator[Row]:
    """Yield a `Row` per file, in order, holding only a few images at a time.

    Files are decoded ahead of the network. With `out`, annotated PNG pictures go there; files of
    the same name from different folders get a number.
    """
    taken: set[str] = set()
    # Only a picture that is drawn on is needed whole.
    shrink_to = max(detector.input_spec.size) if out is None else None
    for path, opened in _decoded_ahead(paths, shrink_to):
        if isinstance(opened, VovnetError):
            yield Row(path, None, str(opened))
            continue
        image, size = opened
        detections = detector.detect([image], conf, iou, [size])[0]
        drawn = None
        if out is not None:
            drawn = out / _free_name(path.stem, taken)
            try:
                write_picture(drawn, draw_detections(image, detections))
            except VovnetError as error:
                yield Row(path, detections, str(error))
                continue
        yield Row(path, detections, drawn=drawn)


def _decoded_ahead(
    paths: Iterable[Path], shrink_to: int | None
) -> Iterator[tuple[Path, _Opened | VovnetError]]:
    waiting: list[tuple[Path, Future]] = []
    with ThreadPoolExecutor(1) as pool:
        for path in paths:
            waiting.append((path, pool.submit(_load, path, shrink_to)))
            if len(waiting) > _AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _load(path: Path, shrink_to: int | None) -> _Opened | VovnetError:
    try:
        return open_image(path, shrink_to=shrink_to)
    except VovnetError as error:
        return error


def _free_name(stem: str, taken: set[str]) -> str:
    name, number = f"{stem}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.png"
    taken.add(name)
    return name


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically; raises `VovnetError` if that cannot be done."""
    data = io.BytesIO()
    image.save(data, "PNG")
    write_atomically(path, data.getvalue())
