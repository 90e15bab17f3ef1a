"""Read a VOC folder as it is written: whatever is wrong becomes a finding, nothing an error."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vovnet.data._common import Folder, one_line
from vovnet.data.doctor.raw import RawBox, RawImage, RawSet, numbers, split_rank
from vovnet.data.doctor.report import Finding
from vovnet.data.images import IMAGE_SUFFIXES
from vovnet.data.voc import Annotation, find_voc_image, list_stems, parse_annotation, voc_splits
from vovnet.errors import DataError


@dataclass
class _Reading:
    """What is being read: each annotation once, however many splits list it."""

    annotations: Folder
    images: Folder
    findings: list[Finding]
    read: dict[str, RawImage | None]


def read_raw_voc(root: Path, wanted: Sequence[str] = ()) -> RawSet:
    """The splits of a VOC folder, or those `wanted`; files in no split are told if none is."""
    reading = _Reading(
        Folder(root / "Annotations", root), Folder(root / "JPEGImages", root), [], {}
    )
    splits: dict[str, tuple[RawImage, ...]] = {}
    # In the order that an image counts as one of: what is wrong with it is told there.
    for split in sorted(wanted or _whole_lists(voc_splits(root)), key=split_rank):
        images = [_image(reading, stem, split) for stem in _stems(reading, root, split)]
        splits[split] = tuple(replace(image, split=split) for image in images if image is not None)
    if not wanted:
        reading.findings += _left_over(reading)
    found = (image for images in splits.values() for image in images)
    names = {box.name for image in found for box in image.boxes if box.name is not None}
    told = tuple(reading.findings)
    return RawSet("voc", root, tuple(sorted(names)), splits, told, partial=bool(wanted))


def _whole_lists(splits: Sequence[str]) -> list[str]:
    """Without PASCAL's lists of a single class, such as cat_train beside train."""
    parts = {split: split.rpartition("_") for split in splits}
    return [split for split, (name, _, rest) in parts.items() if not (name and rest in parts)]


def _stems(reading: _Reading, root: Path, split: str) -> list[str]:
    try:
        listed = list_stems(root, split)
    except DataError as error:
        reading.findings.append(Finding("VD601", str(error), split))
        return []
    stems: dict[str, None] = {}
    for number, stem in enumerate(listed, start=1):
        if stem in stems:
            what = f"{split}.txt line {number} lists it again"
            reading.findings.append(Finding("VD319", what, split, one_line(stem)))
        elif stem:
            stems[stem] = None
    return list(stems)


def _image(reading: _Reading, stem: str, split: str) -> RawImage | None:
    """The image of an id with its objects, None where it has no annotation that can be read."""
    if stem not in reading.read:
        reading.read[stem] = _read(reading, stem, split)
    return reading.read[stem]


def _read(reading: _Reading, stem: str, split: str) -> RawImage | None:
    tell = reading.findings.append
    try:
        path = reading.annotations.find(f"{stem}.xml", f"split {split}")
        image = find_voc_image(reading.images, stem, f"split {split}")
    except DataError as error:
        tell(Finding("VD607", str(error), split, one_line(stem)))
        return None
    name = one_line(stem + (image.suffix if image else ".jpg"))
    if path is None:
        id_, what = ("VD602", "no annotation") if image else ("VD101", "no image, no annotation")
        tell(Finding(id_, f"{what} of it in the data set", split, name))
        return None
    try:
        annotation = parse_annotation(path)
    except DataError as error:
        tell(Finding("VD601", str(error), split, name))
        return None
    if annotation.image and PurePosixPath(annotation.image).stem != PurePosixPath(stem).name:
        what = f"<filename> is {one_line(annotation.image)}"
        tell(Finding("VD608", what, split, name))
    boxes = _boxes(reading, annotation, split, name)
    size = annotation.size if all(annotation.size) else None
    return RawImage(split, stem, name, image, boxes, size, path)


def _boxes(reading: _Reading, annotation: Annotation, split: str, image: str) -> tuple[RawBox, ...]:
    boxes: list[RawBox] = []
    for number, item in enumerate(annotation.objects, start=1):
        if not item.name:
            reading.findings.append(Finding("VD302", "no <name>", split, image, number))
        given = numbers(item.corners)
        boxes.append(RawBox(number, item.name or None, given, difficult=item.difficult))
    return tuple(boxes)


def _left_over(reading: _Reading) -> list[Finding]:
    """The annotations that no split lists, and the images without an annotation."""
    annotated = {path.stem for path in _files(reading.annotations) if path.suffix == ".xml"}
    pictures = [path for path in _files(reading.images) if path.suffix.lower() in IMAGE_SUFFIXES]
    pictured = {path.stem for path in pictures}
    found: list[Finding] = []
    for stem in sorted(annotated - set(reading.read)):
        if stem in pictured:
            found.append(Finding("VD605", "in no split", image=one_line(stem)))
        else:
            found.append(Finding("VD604", f"{one_line(stem)}.xml has no image", image=stem))
    bare = (path for path in pictures if path.stem not in annotated | set(reading.read))
    return [*found, *(Finding("VD117", "no annotation", image=one_line(p.name)) for p in bare)]


def _files(folder: Folder) -> list[Path]:
    try:
        return sorted(folder.root.iterdir())
    except OSError:  # there is no such folder: told of each image that is missing
        return []
