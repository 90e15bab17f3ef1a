"""The doctor's round: read the set as it is written, look at the files, run every check."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vovnet.data.doctor.box_checks import BOX_CHECKS, repeated
from vovnet.data.doctor.image_checks import IMAGE_CHECKS, Pictured
from vovnet.data.doctor.probe import Facts, Track, default_workers, probe_files
from vovnet.data.doctor.report import Report
from vovnet.data.doctor.set_checks import SET_CHECKS
from vovnet.data.finding import Finding, by_severity
from vovnet.data.formats import Source, find_source, read_source
from vovnet.data.formats.yolo import find_yaml, folder_splits
from vovnet.data.open import choose_split
from vovnet.data.placing import Placed, View, written_as_corners
from vovnet.data.raw import RawSet, read_as_corners, read_without_points
from vovnet.errors import DataError
from vovnet.text import one_line

PIXELS_UP_TO = 20_000
"""Images of a set whose pixels are read without being asked to: about a minute's work."""

USUAL_VIEW = View((640, 640))


class Examined(NamedTuple):
    """A set as written, the facts of its files, and the report on it."""

    raw: RawSet
    facts: dict[Path, Facts]
    report: Report


def examine(
    path: str | Path,
    splits: Sequence[str] = (),
    *,
    pixels: bool | None = None,
    workers: int | None = None,
    track: Track = lambda facts, count: facts,
    view: View = USUAL_VIEW,
) -> Examined:
    """Look for every kind of fault in the VOC, COCO or YOLO set at `path`.

    Without `splits` all are examined, and files that belong to none of them are told too. With
    `pixels` every image is decoded, which finds those damaged in the middle and nearly equal ones
    in two splits; otherwise only those that look cut short are. None decodes sets of up to
    20,000 images. `track` is given the facts of the files as they are found and their number, and
    passes them on, as a progress bar does. `view` is the input that the set is meant for: objects
    that are hardly seen in it are told. Whatever is wrong with the set is a finding; only for a
    path that holds no set, and for a split that it does not have, `DataError` is raised.
    """
    path = Path(path)
    source, wanted = _look(path, splits)
    raw = read_source(source, wanted)
    paths = {image.path for image in raw.images() if image.path is not None}
    if pixels is None:
        pixels = len(paths) <= PIXELS_UP_TO
    workers = workers or default_workers()
    facts = probe_files(sorted(paths), pixels=pixels, workers=workers, track=track)
    if any(finding.id == "VD612" for finding in raw.findings):
        raw = read_without_points(raw)
    every = list(_placed(raw, facts))
    if written_as_corners(every):
        raw = read_as_corners(raw)
        told = (Finding("VD213", f"{len(every)} boxes"),)
    else:
        told = ()
    findings = [*raw.findings, *told, *_of_images(raw, facts, view)]
    findings += [finding for check in SET_CHECKS for finding in check(raw, facts)]
    report = Report(
        data=one_line(path),
        layout=raw.layout,
        splits={one_line(split): len(images) for split, images in raw.splits.items()},
        images=sum(1 for _ in raw.images()),
        boxes=sum(len(image.boxes) for image in raw.images()),
        pixels=pixels,
        findings=by_severity(findings),
    )
    return Examined(raw, facts, report)


def _look(path: Path, splits: Sequence[str]) -> tuple[Source, list[str]]:
    """The set, and the splits as it calls them."""
    try:
        source = find_source(path)
    except DataError:
        file = find_yaml(path)
        if not (file.is_file() if file else folder_splits(path)):
            raise
        # What is wrong with data.yaml or classes.txt becomes a finding.
        return Source("yolo", path, ()), list(splits)
    return source, [choose_split(source, split) for split in splits]


def _placed(raw: RawSet, facts: dict[Path, Facts]) -> Iterator[Placed]:
    """Every object where it is drawn."""
    for image in raw.images():
        size = Pictured(image, facts.get(image.path) if image.path else None).box_size
        yield from (Placed(raw.layout, box, size) for box in image.boxes)


def _of_images(raw: RawSet, facts: dict[Path, Facts], view: View) -> Iterator[Finding]:
    for image in raw.images():
        pictured = Pictured(image, facts.get(image.path) if image.path else None)
        for check in IMAGE_CHECKS:
            for id_, what in check(pictured):
                yield Finding(id_, what, image.split, image.name)
        for box in image.boxes:
            placed = Placed(raw.layout, box, pictured.box_size)
            for check in BOX_CHECKS:
                for id_, what in check(placed, view):
                    yield Finding(id_, what, image.split, image.name, box.number)
        for id_, what, box in repeated(image):
            yield Finding(id_, what, image.split, image.name, box.number)
