"""Read a YOLO folder as it is written: whatever is wrong becomes a finding, nothing an error."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vovnet.data._common import Folder, one_line, read_text
from vovnet.data.doctor.raw import RawBox, RawImage, RawSet, numbers
from vovnet.data.doctor.report import Finding
from vovnet.data.images import IMAGE_SUFFIXES
from vovnet.data.yaml_file import read_yaml
from vovnet.data.yolo import (
    MAX_CLASSES,
    find_yaml,
    folder_splits,
    label_place,
    listed_images,
    walked_images,
    yaml_splits,
)
from vovnet.errors import DataError

_SPLITS = ("train", "val", "valid", "test")


@dataclass
class _Reading:
    """What is being read; `names` by class number, empty where the set has none."""

    home: Path
    root: Path
    names: dict[int, str] = field(default_factory=dict)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    folders: dict[Path, Folder] = field(default_factory=dict)
    labels: dict[Path, Path] = field(default_factory=dict)  # and where the first image of each is

    def tell(
        self, id_: str, what: str, split: str = "", image: str = "", number: int | None = None
    ) -> None:
        self.findings.append(Finding(id_, what, split, one_line(image), number))

    def folder(self, root: Path) -> Folder:
        if root not in self.folders:
            self.folders[root] = Folder(root, self.home)
        return self.folders[root]


def read_raw_yolo(source: Path, wanted: Sequence[str] = ()) -> RawSet:
    """The splits of a YOLO set, or those `wanted`; label files without image if none is."""
    reading = _open(source)
    splits = {
        split: tuple(
            image
            for place in places
            for image in _images(reading, place, split, alone=len(places) == 1)
        )
        for split, places in reading.splits.items()
        if not wanted or split in wanted
    }
    if not wanted:
        _tell_left_over(reading)
    names = tuple(dict.fromkeys(name for _, name in sorted(reading.names.items())))
    if not names:  # told already; classes are called by their numbers
        found = (image for images in splits.values() for image in images)
        names = tuple({box.name for image in found for box in image.boxes if box.name})
        names = tuple(sorted(names, key=lambda name: int(name.removeprefix("class_"))))
    return RawSet("yolo", source, names, splits, tuple(reading.findings), partial=bool(wanted))


def _open(source: Path) -> _Reading:
    """The places and the class names of a set."""
    file = find_yaml(source)
    home = source if file is None else file.parent
    reading = _Reading(home, home)
    config = _config(reading, file)
    if file is None or not config:
        reading.splits = folder_splits(home)
    else:
        try:
            reading.root, reading.splits = yaml_splits(config, file)
        except DataError as error:
            reading.tell("VD607", str(error))
            reading.splits = folder_splits(home)
        for split in _SPLITS:
            if config.get(split) and split not in reading.splits:
                what = f"{one_line(file.name)} names {split}: {one_line(config[split])}"
                id_ = "VD409" if split == "train" else "VD407"
                reading.tell(id_, f"{what}, which is not there", split)
    reading.names = _names(reading, config)
    return reading


def _config(reading: _Reading, file: Path | None) -> dict[Any, Any]:
    """What the YAML holds; empty where there is none, or none that can be read."""
    if file is None:
        return {}
    try:
        config = read_yaml(file)
    except DataError as error:
        reading.tell("VD601", str(error))
        return {}
    if not isinstance(config, dict):
        reading.tell("VD601", f"{one_line(file.name)} is no mapping with train, val and names")
        return {}
    return config


def _names(reading: _Reading, config: Mapping[Any, Any]) -> dict[int, str]:
    """The class names by number, those that are no name replaced."""
    given, count = config.get("names"), config.get("nc")
    if given is None and isinstance(count, int) and 0 < count <= MAX_CLASSES:
        return {number: f"class_{number}" for number in range(count)}
    found = _numbered(reading, given if given is not None else _classes_file(reading))
    if not found:
        reading.tell("VD309", "no class names, neither in data.yaml nor in classes.txt")
    elif isinstance(count, int) and count != len(found):
        reading.tell("VD309", f"nc is {count}, but there are {len(found)} names")
    names: dict[int, str] = {}
    for number, name in found.items():
        text = str(name).strip() if isinstance(name, (str, int)) else ""
        if not text:
            reading.tell("VD302", f"class {number} has the name {one_line(repr(name))[:50]}")
        elif text in names.values():
            reading.tell("VD303", f"class {number} has the name of another, {one_line(text)!r}")
        names[number] = text or f"class_{number}"
    return names


def _numbered(reading: _Reading, given: object) -> dict[int, object]:
    if isinstance(given, list):
        return dict(enumerate(given))
    if not isinstance(given, dict):
        return {}
    found = {number: name for number, name in given.items() if isinstance(number, int)}
    if set(given) != set(range(len(given))):
        listed = one_line(", ".join(map(str, given)))
        reading.tell("VD309", f"names are numbered {listed[:80]}, not 0 to {len(given) - 1}")
    return dict(sorted(found.items()))


def _classes_file(reading: _Reading) -> list[str]:
    for folder in (reading.home, reading.home / "labels"):
        try:
            path = reading.folder(folder).find("classes.txt", one_line(folder))
            if path is not None:
                return [line for line in read_text(path).splitlines() if line.strip()]
        except DataError as error:
            reading.tell("VD601", str(error))
    return []


def _images(reading: _Reading, place: Path, split: str, *, alone: bool) -> Iterator[RawImage]:
    """The images of a folder or list, with their objects. Unless the split has that place alone,
    they are called by their paths in the set: other places may have the same names."""
    is_list = place.is_file()
    base = reading.root if is_list else place
    try:
        names = listed_images(place, base) if is_list else walked_images(place)
    except DataError as error:
        reading.tell("VD601", str(error), split)
        return
    before = "" if alone or is_list else f"{place.relative_to(reading.home).as_posix()}/"
    seen: set[str] = set()
    for name in names:
        told = before + name
        if name in seen:
            reading.tell("VD319", f"{place.name} lists it again", split, told)
            continue
        seen.add(name)
        try:
            path, label, other = _files(reading, base, name)
        except DataError as error:
            reading.tell("VD607", str(error), split, told)
            continue
        key = str(base / name)
        boxes = _boxes(reading, label, split, told)
        if boxes is None:
            continue
        if path and label is None:
            reading.tell("VD606", "no label file", split, told)
        if path and label and other:
            reading.tell("VD610", f"that of {one_line(other.name)} too", split, told)
        yield RawImage(split, key, one_line(told), path, boxes, annotation=label)


def _files(
    reading: _Reading, base: Path, name: str
) -> tuple[Path | None, Path | None, Path | None]:
    """An image, its label file, and another image that has that too; None for what is not there.
    Raises `DataError`."""
    path = reading.folder(base).find(name, one_line(name))
    place, label = label_place(base, PurePosixPath(name), reading.home)
    found = reading.folder(place).find(str(label), one_line(name))
    first = reading.labels.setdefault(place / label, base / name)
    return path, found, None if first == base / name else first


def _boxes(
    reading: _Reading, file: Path | None, split: str, image: str
) -> tuple[RawBox, ...] | None:
    """The objects of a label file; None, told already, if it cannot be read."""
    if file is None:
        return ()
    try:
        lines = read_text(file).splitlines()
    except DataError as error:
        reading.tell("VD601", str(error), split, image)
        return None
    boxes: list[RawBox] = []
    for number, line in enumerate(lines, start=1):
        first, *rest = line.split() or [""]
        if not first:
            continue
        if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
            what = f"{len(rest)} numbers behind the class: neither a box nor a polygon"
            reading.tell("VD603", what, split, image, number)
            continue
        name = _class_name(reading, first)
        if name is None:
            what = f"class {one_line(first)[:50]}, but there are {len(reading.names)} names"
            reading.tell("VD301", what, split, image, number)
        boxes.append(RawBox(number, name, numbers(rest), source=line))
    return tuple(boxes)


def _class_name(reading: _Reading, text: str) -> str | None:
    number = numbers([text])
    if not number or number[0] < 0 or not number[0].is_integer():
        return None
    if not reading.names and number[0] < MAX_CLASSES:
        return f"class_{int(number[0])}"
    return reading.names.get(int(number[0]))


def _tell_left_over(reading: _Reading) -> None:
    """The label files whose image is not there, or in no split."""
    places = {label.parent: image.parent for label, image in reading.labels.items()}
    for folder, images in sorted(places.items()):
        if any(folder == place for places in reading.splits.values() for place in places):
            continue  # labels beside their images: what else lies there may be anything
        for path in sorted(folder.glob("*.txt")):
            if path in reading.labels or path.name == "classes.txt":
                continue
            if any((images / f"{path.stem}{suffix}").is_file() for suffix in IMAGE_SUFFIXES):
                reading.tell("VD605", "in no split", image=path.stem)
            else:
                reading.tell("VD604", f"{one_line(path.name)} has no image", image=path.stem)
