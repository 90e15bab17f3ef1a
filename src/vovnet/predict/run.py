"""Files through a detector, one row per file, the bad ones with their reason."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from vovnet.detect.run import AnyDetector
from vovnet.errors import VovnetError
from vovnet.files import refuse_replacing
from vovnet.images.drawing import draw_detections
from vovnet.predict.frames import Reading, open_picture
from vovnet.predict.names import Names
from vovnet.predict.picturefile import picture_suffix, write_picture
from vovnet.predict.row import Row
from vovnet.predict.stream import looker, results, row_of


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
    gives one answer, here and in `evaluate`, drawn or not. With `out`, annotated pictures of the
    same format go there (PNG, where `picture_suffix` knows no better); files of the same name from
    different folders get a number. `options` are those of `detect`: conf, iou, max_det, classes and
    agnostic.

    Raises `VovnetError` before anything is done if a picture in `out` would be replaced, by
    `overwrite` only if it is one of `paths`.
    """
    targets: Iterable[Path | None] = repeat(None)
    if out is not None:
        paths, names = list(paths), Names()
        targets = planned = [out / f"{names.new(path)}{picture_suffix(path)}" for path in paths]
        refuse_replacing(f"--out {out}", planned, paths, overwrite=overwrite)
    how = Reading(max(detector.input_spec.size), whole=out is not None)
    found = results(looker(detector, options), (open_picture(path, how) for path in paths))
    for (frame, detections), target in zip(found, targets, strict=False):
        row = row_of(frame, detections)
        if target is None or detections is None or frame.whole is None:
            yield row
            continue
        try:
            write_picture(target, draw_detections(frame.whole, detections), replace=overwrite)
        except VovnetError as error:
            yield row._replace(error=str(error))
        else:
            yield row._replace(drawn=target)
