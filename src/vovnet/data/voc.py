"""Read PASCAL VOC: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from vovnet.data._common import (
    Box,
    Folder,
    Frame,
    make_record,
    one_line,
    place_box,
    read_bytes,
    read_text,
    turned,
    unknown_split,
)
from vovnet.data.images import annotated_frame
from vovnet.data.record import Dataset, Problem, Record
from vovnet.errors import DataError, ImageError, UnknownNameError

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
ALL = "all"
VOC_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class AnnotatedObject(NamedTuple):
    """One object as written; no corners where it has no box."""

    name: str
    corners: tuple[str, ...]
    difficult: bool


class Annotation(NamedTuple):
    """One file, its name fit for messages; `size` is (height, width), zero where not given.

    `image` is what <filename> says, by which nothing is looked up: many sets have it wrong.
    """

    file: str
    image: str
    size: tuple[int, int]
    objects: list[AnnotatedObject]


def voc_splits(root: Path) -> tuple[str, ...]:
    """The splits of a VOC folder; ("all",) where it has no lists."""
    folder = root / "ImageSets" / "Main"
    lists = sorted(folder.glob("*.txt")) if os.path.isdir(folder) else []
    return tuple(path.stem for path in lists) or (ALL,)


def read_voc(
    root: str | Path,
    split: str,
    names: Sequence[str] | None = None,
    *,
    check_sizes: bool = True,
) -> Dataset:
    """The images of `split` with their objects; image ids are 1..n in the order of the list.

    VOC's corners are 1-based pixels, both included, so a box becomes (xmin-1, ymin-1, xmax, ymax)
    in continuous pixels, clipped to the image. The size in the XML may be that of the image as
    displayed or, where EXIF turns it on its side, as stored: boxes are then turned too, and told
    as "turned". `check_sizes=False` saves reading every image's header, and takes a size in the
    XML at its word. A split without a list, in a folder without lists, is "all".

    Labels index `names` if given, else the sorted class names of all annotations in the folder,
    so that splits agree (the 20 of PASCAL where no annotation has an object).

    Objects that cannot be used are clipped or left out, images without file or annotation are
    left out, and each is told in `Dataset.problems` (objects count from 1). Raises `DataError`
    for an unknown or empty split, malformed XML, XML with a DTD, names that leave the folder, a
    size that is not the image's, and a class that is not in `names`.
    """
    root = Path(root)
    problems: list[Problem] = []
    annotations: dict[str, Annotation] = {}
    folder = Folder(root / "Annotations", root)
    for stem in _each_once(list_stems(root, split), split, problems):
        path = folder.find(f"{stem}.xml", f"split {split}")
        if path is None:
            problems.append(Problem(f"{one_line(stem)}.xml", "no such annotation", "skipped"))
        else:
            annotations[stem] = parse_annotation(path)
    names = tuple(names) if names is not None else _names(root, annotations)
    labels = {name: label for label, name in enumerate(names)}
    images = Folder(root / "JPEGImages", root)
    records: list[Record] = []
    for stem, annotation in annotations.items():
        image = _image(images, stem, annotation, problems, check_sizes)
        if image is not None:
            records.append(_record(len(records) + 1, *image, annotation, labels, problems))
    if not records:
        reason = f" ({problems[0].where}: {problems[0].what})" if problems else ""
        raise DataError(f"{one_line(root)}: split {split} has no images{reason}; check its list")
    return Dataset(root, split, "voc", names, tuple(records), problems=tuple(problems))


def list_stems(root: Path, split: str) -> list[str]:
    """The ids in the list of a split, line by line, "" where a line is empty.

    Raises `DataError` for an unknown split and an unreadable list.
    """
    if not os.path.isdir(root / "Annotations"):
        raise DataError(f"{one_line(root)}: no folder Annotations; give the root of a VOC set")
    splits = voc_splits(root)
    if split not in splits:
        raise unknown_split(root, split, splits)
    lists = root / "ImageSets" / "Main"
    if splits == (ALL,) and not os.path.exists(lists / "all.txt"):
        return sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    return [_stem(line.strip()) for line in read_text(lists / f"{split}.txt").splitlines()]


def _stem(line: str) -> str:
    """Without the -1, 0 or 1 that stands behind the id in lists of a single class."""
    stem, _, mark = line.rpartition(" ")
    return stem.strip() if mark in {"-1", "0", "1"} and stem else line


def _each_once(listed: Sequence[str], split: str, problems: list[Problem]) -> list[str]:
    stems: dict[str, None] = {}
    for number, stem in enumerate(listed, start=1):
        if stem in stems:
            problems.append(
                Problem(f"{split}.txt line {number}", f"{one_line(stem)} again", "skipped")
            )
        elif stem:
            stems[stem] = None
    return list(stems)


def _names(root: Path, annotations: Mapping[str, Annotation]) -> tuple[str, ...]:
    """The class names in all of the folder, of which `annotations` are read already."""
    found = {item.name for annotation in annotations.values() for item in annotation.objects}
    folder = Folder(root / "Annotations", root)
    for file in sorted((root / "Annotations").glob("*.xml")):
        if file.stem in annotations:
            continue
        try:
            path = folder.find(file.name, "Annotations")
            found.update(item.name for item in parse_annotation(path).objects) if path else None
        except DataError:  # of another split, which reports it when it is read
            continue
    found.discard("")
    return tuple(sorted(found)) or VOC_NAMES


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities can make a small file huge or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError("XML with a document type (DTD) is refused; remove it")


def parse_annotation(path: Path) -> Annotation:
    """The annotation in an XML file; raises `DataError` if it is none."""
    root = parse_xml(path)
    size = (_pixels(root.findtext("size/height")), _pixels(root.findtext("size/width")))
    return Annotation(
        file=one_line(path.name),
        image=(root.findtext("filename") or "").strip(),
        size=size,
        objects=[_object(element) for element in root.iterfind("object")],
    )


def parse_xml(path: Path) -> ElementTree.Element:
    """The <annotation> of a file; raises `DataError` for a DTD and what is not XML."""
    data = read_bytes(path)
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root = parser.close()
    except ElementTree.ParseError as error:
        raise DataError(f"{one_line(path)}: malformed XML ({error}); mend the file") from error
    except DataError as error:
        raise DataError(f"{one_line(path)}: {error}") from error
    except (ValueError, LookupError) as error:
        raise DataError(f"{one_line(path)}: unreadable XML ({one_line(error)})") from error
    if root.tag != "annotation":
        raise DataError(f"{one_line(path)}: <{one_line(root.tag)}> is not a VOC <annotation>")
    return root


def _object(element: ElementTree.Element) -> AnnotatedObject:
    box = element.find("bndbox")
    return AnnotatedObject(
        name=(element.findtext("name") or "").strip(),
        corners=() if box is None else tuple(box.findtext(corner) or "" for corner in _CORNERS),
        difficult=(element.findtext("difficult") or "").strip() == "1",
    )


def _pixels(text: str | None) -> int:
    try:
        return max(int(float(text or 0)), 0)
    except (ValueError, OverflowError):
        return 0


def find_voc_image(folder: Folder, stem: str, where: str) -> Path | None:
    """The image of an id, by the suffixes that VOC sets have; raises `DataError` like `find`."""
    paths = (folder.find(stem + suffix, where) for suffix in VOC_SUFFIXES)
    return next((path for path in paths if path is not None), None)


def _image(
    folder: Folder, stem: str, annotation: Annotation, problems: list[Problem], check: bool
) -> tuple[Path, Frame] | None:
    """The image file and the frame of its boxes, or None, told in `problems`."""
    path = find_voc_image(folder, stem, annotation.file)
    if path is None:
        problems.append(Problem(annotation.file, f"no image {one_line(stem)}.jpg", "skipped"))
        return None
    given = annotation.size if all(annotation.size) else None
    try:
        frame = annotated_frame(path, given, annotation.file, check=check)
    except ImageError as error:
        problems.append(Problem(annotation.file, str(error), "skipped"))
        return None
    if frame.orientation != 1:
        problems.append(turned(annotation.file, frame.orientation))
    return path, frame


def _record(
    image_id: int,
    path: Path,
    frame: Frame,
    annotation: Annotation,
    labels: dict[str, int],
    problems: list[Problem],
) -> Record:
    rows: list[tuple[Box, int]] = []
    difficult: list[bool] = []
    for number, item in enumerate(annotation.objects, start=1):
        where = f"{annotation.file} object {number}"
        if not item.name:
            problems.append(Problem(where, "no <name>", "skipped"))
            continue
        if item.name not in labels:
            raise DataError(f"{where}: {one_line(UnknownNameError('class', item.name, labels))}")
        corners, fault = _corners(item)
        if corners is None:
            problems.append(Problem(where, fault, "skipped"))
            continue
        box = place_box(corners, frame, where, problems)
        if box:
            rows.append((box, labels[item.name]))
            difficult.append(item.difficult)
    return make_record(path, image_id, frame.size, rows, difficult=difficult)


def _corners(item: AnnotatedObject) -> tuple[Box | None, str]:
    """The continuous xyxy box in pixels, unclipped, or None and why there is none."""
    if not item.corners:
        return None, "no <bndbox>"
    try:
        x1, y1, x2, y2 = map(float, item.corners)
    except ValueError as error:
        return None, f"corner that is no number ({one_line(error)})"
    if x2 <= x1 or y2 <= y1:  # strictly a box of one pixel, in fact a stray click
        return None, f"box ({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g}) has no area"
    return (x1 - 1, y1 - 1, x2, y2), ""
