"""Write a cleaned copy of a data set, in its own layout; the original is never touched."""

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vovnet.data.doctor.examine import Examined
from vovnet.data.doctor.image_checks import Pictured
from vovnet.data.doctor.mend import Kept, mend_image
from vovnet.data.doctor.write import write_coco, write_voc, write_yolo
from vovnet.data.finding import Finding
from vovnet.errors import DataError
from vovnet.text import one_line

_WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}
# What is said where the kind's own words leave two ways open.
_DONE = {"VD106": "boxes scaled", "VD208": "divided by the size"}
_OF_NUMBERS = {"VD313", "VD314", "VD317"}  # mended though the number is no longer there


def write_clean_copy(examined: Examined, dest: str | Path) -> tuple[Finding, ...]:
    """Write a copy without the faults that were found; the findings, with what was done.

    The folder `dest` must not exist or be empty, and lie outside the data set. Images that need no
    change are hard links where the file system can, so do not edit them in place. Raises
    `DataError` for a `dest` that cannot be used, and if no image is left.
    """
    dest, raw = Path(os.path.abspath(dest)), examined.raw
    _check_dest(dest, raw.home)
    images = _kept(examined)
    leaks = {(f.split, f.image) for f in examined.report.findings if f.id == "VD401"}
    splits: dict[str, list[Kept]] = {}
    for split, listed in raw.splits.items():
        found = [images.get(image.key) for image in listed if (split, image.name) not in leaks]
        kept = [image for image in found if image is not None]
        if kept and (not raw.learns(split) or _teaches(kept)):
            splits[split] = kept
    if not splits:
        what = "no image is left to copy, or none with an object"
        raise DataError(f"{one_line(raw.source)}: {what}; mend it by hand")
    # A name of its own until it is whole: a part of a set looks like a set.
    part = dest.with_name(f".{dest.name}.{os.getpid()}.part")
    try:
        _WRITERS[raw.layout](part, raw, splits, {f.id for f in examined.report.findings})
        if dest.exists():
            dest.rmdir()
        part.rename(dest)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(f"{one_line(dest)}: cannot be written ({error.strerror})") from None
    return _told(examined, images)


def _teaches(images: Sequence[Kept]) -> bool:
    """Whether a copy of the images has an object to train on."""
    return any(mended.box.learned for image in images for mended in image.boxes)


def _check_dest(dest: Path, root: Path) -> None:
    """Raise `DataError` unless `dest` is new or empty, and outside `root`."""
    if os.path.lexists(dest) and not (dest.is_dir() and not any(dest.iterdir())):
        raise DataError(f"{one_line(dest)}: is there already; give a new or empty folder")
    if Path(os.path.realpath(dest)).is_relative_to(os.path.realpath(root)):
        raise DataError(f"{one_line(dest)}: lies in the data set itself; give a folder outside")


def _kept(examined: Examined) -> dict[str, Kept | None]:
    """What is kept of each image, by its key; None where it is left out."""
    raw, facts = examined.raw, examined.facts
    ids: dict[tuple[str, str], dict[int | None, set[str]]] = defaultdict(lambda: defaultdict(set))
    for finding in examined.report.findings:
        if finding.image and finding.kind.fix:
            ids[finding.split, finding.image][finding.object].add(finding.id)
    return {
        image.key: mend_image(
            Pictured(image, facts.get(image.path) if image.path else None),
            raw.layout,
            ids.get((image.split, image.name), {}),
        )
        for image in raw.images()
    }


def _told(examined: Examined, images: dict[str, Kept | None]) -> tuple[Finding, ...]:
    """The findings, each with what was done about it."""
    by_name = {(image.split, image.name): images[image.key] for image in examined.raw.images()}
    return tuple(
        replace(finding, done=_done(finding, by_name)) for finding in examined.report.findings
    )


def _done(finding: Finding, images: dict[tuple[str, str], Kept | None]) -> str:
    fix, where = finding.kind.fix, (finding.split, finding.image)
    if not fix or where not in images or finding.id == "VD401":
        return fix
    kept = images[where]
    if kept is None:
        return "image left out"
    if finding.object is None or finding.id in _OF_NUMBERS:
        return _DONE.get(finding.id, fix)
    if all(mended.box.number != finding.object for mended in kept.boxes):
        return "object left out"
    return _DONE.get(finding.id, fix)
