"""Read PASCAL VOC: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages`."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from vovnet.data.folder import below, leaves, walk_files
from vovnet.data.formats.reading import Reading
from vovnet.data.frame import Size
from vovnet.data.raw import RawBox, RawImage, RawSet, numbers, split_rank
from vovnet.errors import DataError
from vovnet.images import IMAGE_SUFFIXES
from vovnet.text import one_line, read_bytes, read_text

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
ALL = "all"
_HEAD = 4096  # bytes
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_PICTURES = ("JPEGImages", "images", "Images")
_MARKS = {"-1", "0", "1", "+1", "\N{MINUS SIGN}1"}  # behind the ids in the list of one class
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
# What files that declare one often hold in fact, as browsers read them too.
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}


class VocSplit(NamedTuple):
    """Where a split's annotations and pictures are, and its list (None: all annotations)."""

    annotations: Path
    pictures: Path
    list: Path | None = None


def pascal_splits(root: Path) -> dict[str, VocSplit]:
    """The splits of PASCAL's folders, where pictures may also lie in `images`; none if there are no
    such folders."""
    lists = _first_folder(root, ("ImageSets/Main", "ImageSets"))
    pictures = _first_folder(root, _PICTURES)
    for annotations in (root / "Annotations", root / "annotations"):
        pascal = annotations.name == "Annotations" and (lists or (root / _PICTURES[0]) == pictures)
        if os.path.isdir(annotations) and (pascal or (pictures and _holds_xml(annotations))):
            place = VocSplit(annotations, pictures or root / _PICTURES[0])
            files = sorted(lists.glob("*.txt")) if lists else []
            return {file.stem: place._replace(list=file) for file in files} or {ALL: place}
    return {}


def flat_splits(root: Path) -> dict[str, VocSplit]:
    """The splits where annotations lie beside their pictures, in the folder itself or in one folder
    for each split; none if there are no such annotations."""
    if _annotated(root):
        return {ALL: VocSplit(root, root)}
    folders = sorted(path for path in _entries(root) if _annotated(path))
    return {folder.name: VocSplit(folder, folder) for folder in folders}


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if os.path.isdir(root / name)), None)


def _entries(folder: Path) -> Iterator[Path]:
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            yield from (folder / entry.name for entry in entries)


def _holds_xml(folder: Path) -> bool:
    return any(path.suffix.lower() == ".xml" for path in _entries(folder))


def _annotated(folder: Path) -> bool:
    """Whether a folder holds an annotation beside a picture of its name."""
    if not os.access(folder, os.R_OK | os.X_OK) or not _holds_xml(folder):
        return False
    files = list(_entries(folder))
    pictured = {path.stem for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    beside = (p for p in files if p.suffix.lower() == ".xml" and p.stem in pictured)
    first = next(beside, None)
    return first is not None and _is_annotation(first)


def _is_annotation(path: Path) -> bool:
    """Whether an XML file begins like one of VOC's: many programs leave XML beside pictures."""
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(_HEAD).replace(b"\0", b"")  # UTF-16 too
    except OSError:
        return False


@dataclass
class _Reading(Reading):
    """What is being read: each annotation once, however many splits list it."""

    read: dict[str, RawImage | None] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def read_voc(root: Path, wanted: Sequence[str] = ()) -> RawSet:
    """The splits of a VOC set, or those `wanted`; files in no split are told if none is.

    VOC's corners are 1-based pixels, both included. The class names are those of all annotations
    in the folder, sorted, so that splits agree (the 20 of PASCAL where none has an object).
    """
    places = pascal_splits(root) or flat_splits(root)
    reading = _Reading(root)
    splits: dict[str, tuple[RawImage, ...]] = {}
    # In the order that an image counts as one of: what is wrong with it is told there.
    for split in sorted(wanted or _whole_lists(places), key=split_rank):
        place = places[split]
        images = [_image(reading, place, stem, split) for stem in _stems(reading, place, split)]
        splits[split] = tuple(replace(image, split=split) for image in images if image is not None)
    unread = _read_the_rest(reading, places)
    if not wanted:
        _tell_left_over(reading, places, unread)
    names = tuple(sorted(reading.names)) or VOC_NAMES
    told = tuple(reading.findings)
    return RawSet("voc", root, root, names, splits, told, partial=bool(wanted))


def _whole_lists(splits: Iterable[str]) -> list[str]:
    """Without PASCAL's lists of a single class, such as cat_train beside train."""
    parts = {split: split.rpartition("_") for split in splits}
    return [split for split, (name, _, rest) in parts.items() if not (name and rest in parts)]


def _stems(reading: _Reading, place: VocSplit, split: str) -> list[str]:
    """The annotations of a split, each once, by their paths without suffix."""
    if place.list is None:
        return [name[: -len(".xml")] for name in _listing(place)]
    try:
        lines = read_text(place.list).splitlines()
    except DataError as error:
        reading.tell("VD601", str(error), split, action="refused")
        return []
    stems: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        stem = _stem(line, place, reading)
        if stem in stems:
            what = f"{split}.txt line {number} lists it again"
            reading.tell("VD319", what, split, stem, action="left out")
        elif stem:
            stems[stem] = None
    return list(stems)


def _listing(place: VocSplit) -> list[str]:
    """All annotations; beside their pictures, those in the folder itself."""
    if place.annotations != place.pictures:
        return walk_files(place.annotations, (".xml",))
    return sorted(
        path.name for path in _entries(place.annotations) if path.suffix.lower() == ".xml"
    )


def _stem(line: str, place: VocSplit, reading: _Reading) -> str:
    """The id in a line of a list, which may be quoted, marked, or the path of a picture."""
    root = reading.home
    text, *mark = line.strip().rsplit(maxsplit=1)[:2] if line.strip() else [""]
    marked = bool(mark) and mark[0] in _MARKS
    if marked and not leaves(line) and reading.folder(place.annotations).has(f"{line.strip()}.xml"):
        return line.strip()  # a name that ends like a mark
    text = (text if marked else line.strip()).strip("\"'")
    if not any(char in text for char in "./\\"):
        return text
    pure = PurePosixPath(below(root, text))
    if len(pure.parts) > 1 and pure.parts[0] in (place.pictures.name, place.annotations.name):
        pure = PurePosixPath(*pure.parts[1:])
    known = pure.suffix.lower() in (*IMAGE_SUFFIXES, ".xml")
    return str(pure.with_suffix("") if known else pure) if text else ""


def _key(reading: _Reading, place: VocSplit, stem: str) -> str:
    """What an annotation is known by in the whole set: its path below `Annotations`."""
    flat = place.annotations == place.pictures != reading.home
    return f"{place.annotations.name}/{stem}" if flat else stem


def _image(reading: _Reading, place: VocSplit, stem: str, split: str) -> RawImage | None:
    """The image of an id with its objects, None where it has no annotation that can be read."""
    key = _key(reading, place, stem)
    if key not in reading.read:
        reading.read[key] = _read(reading, place, stem, split)
    return reading.read[key]


def _read(reading: _Reading, place: VocSplit, stem: str, split: str) -> RawImage | None:
    pictures, where = reading.folder(place.pictures), f"split {split}"
    try:
        path = reading.folder(place.annotations).find(f"{stem}.xml", where)
        image = pictures.find_picture(stem, where)
    except DataError as error:
        reading.tell("VD607", str(error), split, stem, action="refused")
        return None
    name = one_line(stem + (image.suffix if image else ".jpg"))
    if path is None:
        id_, what = ("VD602", "no annotation") if image else ("VD101", "no image, no annotation")
        reading.tell(id_, f"{what} of it in the data set", split, name, action="left out")
        return None
    try:
        annotation = parse_annotation(path)
        image = pictures.find_picture(stem, where, annotation.image)
    except DataError as error:
        reading.tell("VD601", str(error), split, name, action="refused")
        return None
    if annotation.image and _name(annotation.image) != os.path.basename(stem):
        reading.tell("VD608", f"<filename> is {one_line(annotation.image)}", split, name)
    boxes = _boxes(reading, annotation, split, name)
    reading.names.update(box.name for box in boxes if box.name is not None)
    size = annotation.size if all(annotation.size) else None
    return RawImage(split, _key(reading, place, stem), name, image, boxes, size, path)


def _name(filename: str) -> str:
    """The file name without its suffix; Windows' separators count too."""
    return os.path.splitext(os.path.basename(filename.replace("\\", "/")))[0]


def _boxes(
    reading: _Reading, annotation: "Annotation", split: str, image: str
) -> tuple[RawBox, ...]:
    boxes: list[RawBox] = []
    for number, item in enumerate(annotation.objects, start=1):
        if not item.name:
            reading.tell("VD302", "no <name>", split, image, number, action="left out")
        given = numbers(item.corners)
        boxes.append(RawBox(number, item.name or None, given, difficult=item.difficult))
    return tuple(boxes)


def _read_the_rest(reading: _Reading, places: dict[str, VocSplit]) -> list[tuple[VocSplit, str]]:
    """Read the class names of the annotations in no split that was read; returns those."""
    unread: list[tuple[VocSplit, str]] = []
    for place in {split.annotations: split for split in places.values()}.values():
        folder = reading.folder(place.annotations)
        for name in walk_files(place.annotations, (".xml",)):
            stem = name[: -len(".xml")]
            if _key(reading, place, stem) in reading.read:
                continue
            unread.append((place, stem))
            try:
                path = folder.find(name, "Annotations")
                objects = parse_annotation(path).objects if path else []
            except DataError:  # of another split, which reports it when it is read
                continue
            reading.names.update(item.name for item in objects if item.name)
    return unread


def _tell_left_over(
    reading: _Reading, places: dict[str, VocSplit], unread: list[tuple[VocSplit, str]]
) -> None:
    """The annotations that no split lists, and the pictures without an annotation."""
    for place, stem in unread:
        if reading.folder(place.pictures).has_picture(stem):
            reading.tell("VD605", "in no split", image=stem)
        else:
            reading.tell("VD604", f"{one_line(stem)}.xml has no image", image=stem)
    for place in {split.pictures: split for split in places.values()}.values():
        annotations = reading.folder(place.annotations)
        for name in walk_files(place.pictures, IMAGE_SUFFIXES):
            stem = os.path.splitext(name)[0]
            known = _key(reading, place, stem) in reading.read
            if not known and not annotations.has(f"{stem}.xml"):
                reading.tell("VD117", "no annotation", image=name)


class AnnotatedObject(NamedTuple):
    """One object as written; no corners where it has no box."""

    name: str
    corners: tuple[str, ...]
    difficult: bool


class Annotation(NamedTuple):
    """One file; `size` is (height, width), zero where not given.

    `image` is what <filename> says, by which nothing is looked up: many sets have it wrong.
    """

    image: str
    size: Size
    objects: list[AnnotatedObject]


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities can make a small file huge or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError("XML with a document type (DTD) is refused; remove it")


def parse_annotation(path: Path) -> Annotation:
    """The annotation in an XML file; raises `DataError` if it is none."""
    root = parse_xml(path)
    return Annotation(
        image=(root.findtext("filename") or "").strip(),
        size=(_pixels(root.findtext("size/height")), _pixels(root.findtext("size/width"))),
        objects=[_object(element) for element in root.iterfind("object")],
    )


def parse_xml(path: Path) -> ElementTree.Element:
    """The <annotation> of a file; raises `DataError` for a DTD and what is not XML."""
    data = read_bytes(path)
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(_decoded(data))
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


def _decoded(data: bytes) -> str | bytes:
    """The text of an XML file that declares an encoding: Python knows more of them than the
    parser, which finds out by itself where none is declared."""
    if data.startswith(b"\xef\xbb\xbf"):  # UTF-8, whatever is declared
        return data.decode("utf-8-sig")
    declared = _ENCODING.match(data)
    if declared is None:
        return data
    encoding = declared[1].decode().lower()
    if encoding.replace("-", "").startswith("utf16"):  # told by its first bytes
        return data
    return data.decode(_SUPERSETS.get(encoding, encoding))


def _object(element: ElementTree.Element) -> AnnotatedObject:
    box = element.find("bndbox")
    return AnnotatedObject(
        name=(element.findtext("name") or "").strip(),
        corners=() if box is None else tuple(box.findtext(corner) or "" for corner in _CORNERS),
        difficult=(element.findtext("difficult") or "").strip().lower() in ("1", "true"),
    )


def _pixels(text: str | None) -> int:
    try:
        return max(int(float(text or 0)), 0)
    except (ValueError, OverflowError):
        return 0
