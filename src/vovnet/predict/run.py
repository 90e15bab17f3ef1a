"""Files through a detector, one row per file, the bad ones with their reason."""

import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vovnet.detect.pictures import Picture
from vovnet.detect.run import AnyDetector
from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.files import refuse_replacing, write_atomically
from vovnet.images import open_image
from vovnet.images.drawing import draw_detections

_AHEAD = 2  # images decoded before their turn


class _Opened(NamedTuple):
    """A picture as the network sees it, and the one to draw on."""

    seen: Picture
    whole: Image.Image


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
    detector: AnyDetector,
    paths: Iterable[Path],
    *,
    out: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Iterator[Row]:
    """Yield a `Row` per file, in order, holding only a few images at a time.

    Files are decoded ahead of the network, JPEGs as small as its input allows, so that an image
    gives one answer, here and in `evaluate`, drawn or not. With `out`, annotated PNG pictures go
    there; files of the same name from different folders get a number. `options` are those of
    `detect`: conf, iou, max_det, classes and agnostic.

    Raises `VovnetError` before anything is done if a picture in `out` would be replaced, by
    `overwrite` only if it is one of `paths`.
    """
    drawn: Iterable[Path | None] = repeat(None)
    if out is not None:
        paths = list(paths)
        drawn = targets = _names_in(out, paths)
        refuse_replacing(f"--out {out}", targets, paths, overwrite=overwrite)
    side = max(detector.input_spec.size)
    load = partial(_load, side=side, draw=out is not None)
    for (path, opened), target in zip(_decoded_ahead(paths, load), drawn, strict=False):
        if isinstance(opened, VovnetError):
            yield Row(path, None, str(opened))
            continue
        detections = detector.detect(opened.seen, **options)
        if target is None:
            yield Row(path, detections)
            continue
        try:
            write_picture(target, draw_detections(opened.whole, detections), replace=overwrite)
        except VovnetError as error:
            yield Row(path, detections, str(error))
        else:
            yield Row(path, detections, drawn=target)


def _decoded_ahead(
    paths: Iterable[Path], load: Callable[[Path], _Opened | VovnetError]
) -> Iterator[tuple[Path, _Opened | VovnetError]]:
    waiting: list[tuple[Path, Future]] = []
    with ThreadPoolExecutor(1) as pool:
        for path in paths:
            waiting.append((path, pool.submit(load, path)))
            if len(waiting) > _AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _load(path: Path, *, side: int, draw: bool) -> _Opened | VovnetError:
    try:
        seen, size = open_image(path, shrink_to=side)
        whole = draw and (seen.height, seen.width) != size
        return _Opened(Picture(seen, size, path), open_image(path)[0] if whole else seen)
    except VovnetError as error:
        return error


def _names_in(out: Path, pictures: Iterable[Path]) -> list[Path]:
    """Where the annotated copy of each picture goes: no two to one name, whatever its case."""
    taken: set[str] = set()
    names = []
    for picture in pictures:
        name, number = f"{picture.stem}.png", 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            number += 1
            name = f"{picture.stem}-{number}.png"
        taken.add(key)
        names.append(out / name)
    return names


def write_picture(path: Path, image: Image.Image, *, replace: bool = True) -> None:
    """Write a PNG atomically; raises `VovnetError` if that cannot be done."""
    data = io.BytesIO()
    image.save(data, "PNG")
    write_atomically(path, data.getvalue(), replace=replace)
