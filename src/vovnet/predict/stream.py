"""Sources through a detector, a few frames at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vovnet.detect.options import CONF
from vovnet.detect.pictures import Picture
from vovnet.detect.run import AnyDetector
from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.predict.ahead import Ahead
from vovnet.predict.frames import STDIN, Frame, Reading, frames_of
from vovnet.predict.row import Row

if TYPE_CHECKING:
    from vovnet.detect.tiles import Tiling

_AHEAD = 2  # pictures decoded before their turn
Look = Callable[[list[Picture]], list[Detections]]


def stream(
    detector: AnyDetector,
    source: str | Iterable[str],
    *,
    every: int = 1,
    batch: int = 1,
    recursive: bool = False,
    keep_all: bool = False,
    max_fps: float | None = None,
    tiling: "Tiling | None" = None,
    track: bool = False,
    **options: Any,
) -> Iterator[Row]:
    """Yield a `Row` with its `image` for every picture or frame of a source, as they arise.

    A source is what `vovnet predict` takes: files, folders, lists, addresses, videos, cameras;
    several one after the other, live ones beside each other and last, without end. Only a few
    frames are held. Of a live source the newest frame is taken, unless `keep_all`, and at most
    `max_fps` a second. `tiling` is for large pictures; `track` follows objects through videos,
    whose detections then have `tracks`. `options` are those of `detect`. What is wrong with a
    source is a row.
    """
    from vovnet.predict.live import Live
    from vovnet.predict.sources import find_sources

    found = find_sources([source] if isinstance(source, str) else source, recursive=recursive)
    for name, fault in found.faults.items():
        yield Row(name, None, str(fault))
    look = looker(detector, options, tiling, track=track)
    high = options.get("conf", CONF) if track else None
    side = None if tiling else max(detector.input_spec.size)
    how = Reading(side, whole=True, every=every)
    frames, patient = frames_of(found.files, how), STDIN not in found.files
    for frame, detections in results(look, frames, batch=batch, patient=patient, high=high):
        if not (frame.end or frame.skipped):
            yield row_of(frame, detections)._replace(image=frame.whole)
    if found.live:
        with Live(found.live, keep_all=keep_all, max_fps=max_fps) as live:
            for frame, detections in looked_at(look, live.batches(batch), high):
                yield row_of(frame, detections)._replace(image=frame.whole)


def looker(
    detector: AnyDetector,
    options: dict[str, Any],
    tiling: "Tiling | None" = None,
    *,
    track: bool = False,
) -> Look:
    """What finds objects in a few pictures at once; for tracks also those with low scores."""
    if track:
        from vovnet.predict.tracking import LOW

        options = options | {"conf": min(LOW, options.get("conf", CONF))}
    if tiling is None:
        return lambda pictures: detector.detect(pictures, **options)
    from vovnet.detect.tiles import detect_tiled

    return lambda pictures: [
        detect_tiled(detector, picture.image, tiling, path=picture.path, **options)
        for picture in pictures
    ]


def results(
    look: Look,
    frames: Iterable[Frame],
    *,
    batch: int = 1,
    patient: bool = True,
    high: float | None = None,
) -> Iterator[tuple[Frame, Detections | None]]:
    """Every frame, decoded ahead, with what is found in it; None where there is no picture. Unless
    `patient`, a batch is not waited for until it is full. `high` is `looked_at`'s."""
    ahead = Ahead(frames, max(_AHEAD, batch))
    yield from looked_at(look, ahead.batches(batch, patient=patient), high)


def looked_at(
    look: Look, batches: Iterable[list[Frame]], high: float | None = None
) -> Iterator[tuple[Frame, Detections | None]]:
    """The frames of batches with what is found in them; with `high`, the score from which tracks
    begin, objects are followed."""
    found = _looked_at(look, batches)
    if high is None:
        return found
    from vovnet.predict.tracking import followed

    return followed(found, high)


def _looked_at(
    look: Look, batches: Iterable[list[Frame]]
) -> Iterator[tuple[Frame, Detections | None]]:
    for batch in batches:
        pictures = [frame.seen for frame in batch if frame.seen is not None]
        found = iter(look(pictures) if pictures else [])
        for frame in batch:
            yield frame, None if frame.seen is None else next(found)


def row_of(frame: Frame, detections: Detections | None) -> Row:
    """The row of a frame, before anything is drawn."""
    if frame.error is not None:
        return Row(frame.path, None, frame.error)
    return Row(frame.path, detections, frame=frame.number, time=frame.time)


def check_numbers(**numbers: float | None) -> None:
    """Raise `VovnetError` for options that are not above 0; None stands for the default."""
    for name, value in numbers.items():
        if value is not None and not value > 0:
            raise VovnetError(f"--{name.replace('_', '-')} {value}: must be above 0")
