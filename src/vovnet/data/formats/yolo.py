"""Read the YOLO layout: image folders, a label file for each image, and `data.yaml`.

A line of a label file is "class cx cy w h" in fractions of the image as displayed, or
"class x1 y1 x2 y2 x3 y3 …", a polygon, which becomes a mask, and whose bounds are the box. An
oriented box (eight numbers) is a polygon of four points. With `task: segment` or `task: obb` in the
YAML, lines of many numbers are polygons beyond doubt. Where the YAML has `kpt_shape: [K, D]`, a
line is a box and K key points of D numbers each, and the key points are left aside.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vovnet.data.folder import below, walk_files
from vovnet.data.formats.reading import Reading
from vovnet.data.formats.yolo_lines import hold_key_points, read_line
from vovnet.data.raw import RawBox, RawImage, RawSet
from vovnet.data.yaml_file import read_yaml
from vovnet.errors import DataError
from vovnet.images import IMAGE_SUFFIXES
from vovnet.text import one_line, read_text, short

YAML_SUFFIXES = (".yaml", ".yml")
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_SPLITS = ("train", "val", "valid", "validation", "test")
_OUTLINES = ("segment", "obb")  # a YAML's `task` whose lines are polygons
MAX_CLASSES = 100_000


# ---- where things are


def find_yaml(source: Path) -> Path | None:
    """The `data.yaml` of a YOLO folder, or `source` itself if it is one."""
    if source.suffix.lower() in YAML_SUFFIXES:
        return source
    return next((source / name for name in _YAML_NAMES if os.path.isfile(source / name)), None)


def yolo_splits(source: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """The splits of a YOLO folder or `data.yaml` whose images exist, each a list of folders and of
    text files that list images; and those that the YAML names and that are not there, as it names
    them. Raises `DataError` for a YAML that cannot be used."""
    file = find_yaml(source)
    if file is None:
        return folder_splits(source), {}
    config = _mapping(file)
    splits = yaml_splits(config, file)[1]
    return splits, _missing_splits(config, splits)


def _mapping(file: Path) -> dict[Any, Any]:
    config = read_yaml(file)
    if not isinstance(config, dict):
        raise DataError(f"{one_line(file)}: not a mapping with train, val and names")
    return config


def yaml_splits(config: Mapping[Any, Any], file: Path) -> tuple[Path, dict[str, list[Path]]]:
    """What the lists of a `data.yaml` are relative to, and its splits that exist.

    Raises `DataError` for one that leaves the folder of the YAML.
    """
    path, root = config.get("path"), file.parent
    if isinstance(path, str) and os.path.isdir(file.parent / path):
        root = _place(file, file.parent, path) or root
    splits: dict[str, list[Path]] = {}
    for split in _SPLITS:
        value = config.get(split)
        given = value if isinstance(value, list) else [value]
        places = [_place(file, root, text) for text in given if isinstance(text, str) and text]
        found = [place for place in places if place is not None]
        if found and len(found) == len(places):
            splits[split] = found
    return root, splits


def _missing_splits(config: Mapping[Any, Any], found: Mapping[str, Any]) -> dict[str, str]:
    named = {split: config.get(split) for split in _SPLITS if split not in found}
    return {split: short(value) for split, value in named.items() if value}


def _place(file: Path, root: Path, text: str) -> Path | None:
    """What `text` in the YAML names, as a path below the YAML's folder; None if it is not there."""
    home = file.parent
    # Roboflow writes "../train/images" for what lies beside its data.yaml.
    places = [root / text, root / text.removeprefix("../")]
    there = [place for place in places if os.path.exists(place)]
    for place in filter(None, (_below(home, place) for place in there)):
        if _below(home, label_place(place, PurePosixPath(), home)[0]):
            return place
    if not there:
        return None
    raise DataError(
        f"{one_line(file)}: {one_line(repr(text))}, or its labels, leave the folder of the YAML; "
        "move the YAML into the folder that holds the images and labels, or give that folder"
    )


def _below(home: Path, place: Path) -> Path | None:
    """`place` as a path that begins with `home`; None if it is elsewhere, links resolved."""
    for tidy in (os.path.abspath, os.path.realpath):
        here, there = Path(tidy(home)), Path(tidy(place))
        if there.is_relative_to(here):
            found = home / there.relative_to(here)
            inside = Path(os.path.realpath(found)).is_relative_to(os.path.realpath(home))
            return found if inside else None
    return None


def folder_splits(root: Path) -> dict[str, list[Path]]:
    """The splits of a folder without `data.yaml`, going by its folders: `images/<split>` with
    `labels/<split>`, `<split>/images` with `<split>/labels`, or label files beside their pictures,
    in one folder for each split or in the folder itself."""
    splits: dict[str, list[Path]] = {}
    if not os.path.isdir(root):
        return splits
    for images in sorted([*root.glob("images/*"), *root.glob("*/images")]):
        split = images.name if images.parent.name == "images" else images.parent.name
        if images.is_dir() and _labels_exist(images, root):
            splits[split] = [images]
    if not splits and (root / "images").is_dir() and _labels_exist(root / "images", root):
        splits["all"] = [root / "images"]
    if not splits and _labelled(root):
        splits["all"] = [root]
    if not splits:
        splits = {f.name: [f] for f in sorted(root.iterdir()) if f.is_dir() and _labelled(f)}
    return splits


def _labels_exist(images: Path, root: Path) -> bool:
    return label_place(images, PurePosixPath(), root)[0].is_dir() or _labelled(images)


def _labelled(folder: Path) -> bool:
    """Whether a folder holds a label file beside a picture of its name."""
    with os.scandir(folder) as entries:
        names = [os.path.splitext(entry.name) for entry in entries]
    pictures = {stem for stem, suffix in names if suffix.lower() in IMAGE_SUFFIXES}
    return any(stem in pictures for stem, suffix in names if suffix.lower() == ".txt")


def label_place(base: Path, image: PurePosixPath, home: Path) -> tuple[Path, PurePosixPath]:
    """The folder of labels and the label file in it, for `image` below `base`, itself below `home`.

    The last "images" of the path below `home` becomes "labels"; without one, labels lie beside
    their images.
    """
    label = image.with_suffix(".txt") if image.name else image
    for path in (label, base.relative_to(home)):
        parts = list(path.parts)
        if "images" in parts:
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
            break
    else:
        return base, label
    return (base, PurePosixPath(*parts)) if path is label else (home.joinpath(*parts), label)


# ---- reading


@dataclass
class _Reading(Reading):
    """What is being read below `root`; `names` by class number, empty where the set has none."""

    root: Path = Path()
    names: dict[int, str] = field(default_factory=dict)
    key_points: tuple[int, int] | None = None
    outlines: bool = False  # the YAML says that lines of many numbers are polygons
    splits: dict[str, list[Path]] = field(default_factory=dict)
    labels: dict[Path, Path] = field(default_factory=dict)  # and where the first image of each is


def read_yolo(source: Path, wanted: Sequence[str] = (), names: Sequence[str] = ()) -> RawSet:
    """The splits of a YOLO set, or those `wanted`; label files without image are told if none is.

    Class names come from the YAML or `classes.txt`, else they are `names`. What a `data.yaml` names
    must lie in the YAML's own folder, links resolved. The label file of `…/images/x.jpg` is
    `…/labels/x.txt`, else `x.txt` beside it; an image without one has no objects.
    """
    reading = _open(source, names)
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
    if reading.key_points is None and not reading.outlines:
        _tell_key_points(reading, splits)
    found = tuple(name for _, name in sorted(reading.names.items()))
    if not found:  # told already; classes are called by their numbers
        boxes = (box for images in splits.values() for image in images for box in image.boxes)
        numbers = {int(box.name.removeprefix("class_")) for box in boxes if box.name}
        found = tuple(f"class_{number}" for number in sorted(numbers))
    told = tuple(reading.findings)
    unique = tuple(dict.fromkeys(found))
    files = {"": file} if (file := find_yaml(source)) else {}
    return RawSet(
        *("yolo", source, reading.home, unique, splits, told), files=files, partial=bool(wanted)
    )


def _open(source: Path, names: Sequence[str]) -> _Reading:
    """The places and the class names of a set."""
    file = find_yaml(source)
    home = source if file is None else file.parent
    reading = _Reading(home, root=home)
    config = _config(reading, file)
    if file is None or not config:
        reading.splits = folder_splits(home)
    else:
        try:
            reading.root, reading.splits = yaml_splits(config, file)
        except DataError as error:
            reading.tell("VD607", str(error), action="refused")
            reading.splits = folder_splits(home)
        for split, value in _missing_splits(config, reading.splits).items():
            what = f"{one_line(file.name)} names {split}: {value}, which is not there"
            reading.tell("VD409" if split == "train" else "VD407", what, split)
    reading.key_points = _key_points(reading, config)
    reading.outlines = config.get("task") in _OUTLINES
    reading.names = _names(reading, config, names)
    return reading


def _config(reading: _Reading, file: Path | None) -> dict[Any, Any]:
    """What the YAML holds; empty where there is none, or none that can be read."""
    try:
        return {} if file is None else _mapping(file)
    except DataError as error:
        reading.tell("VD601", str(error), action="refused")
        return {}


def _key_points(reading: _Reading, config: Mapping[Any, Any]) -> tuple[int, int] | None:
    given = config.get("kpt_shape")
    if given is None:
        return None
    if isinstance(given, list) and len(given) == 2 and all(type(n) is int for n in given):
        count, each = given
        if 0 < count <= MAX_CLASSES and each in (2, 3):
            reading.tell("VD613", f"kpt_shape is {given}")
            return count, each
    what = f"kpt_shape is {short(given)}, not the number of key points and 2 or 3"
    reading.tell("VD603", what, action="refused")
    return None


def _names(
    reading: _Reading, config: Mapping[Any, Any], otherwise: Sequence[str]
) -> dict[int, str]:
    """The class names by number, those that are no name replaced."""
    given, count = config.get("names"), config.get("nc")
    if given is None and type(count) is int and 0 < count <= MAX_CLASSES:
        return {number: f"class_{number}" for number in range(count)}
    found = _numbered(reading, given if given is not None else _classes_file(reading))
    if not found and otherwise:
        return dict(enumerate(otherwise))
    if not found:
        what = "no class names, neither in data.yaml nor in classes.txt"
        reading.tell("VD323", what, action="refused")
    elif type(count) is int and count != len(found):
        what = f"nc is {count}, but there are {len(found)} names"
        reading.tell("VD309", what, action="refused")
    names: dict[int, str] = {}
    seen: set[str] = set()
    for number, name in found.items():
        text = str(name).strip() if isinstance(name, (str, int)) else ""
        if not text:
            reading.tell("VD302", f"class {number} has the name {short(name)}", action="refused")
        elif text in seen:
            what = f"class {number} has the name of another, {short(text)}"
            reading.tell("VD303", what, action="refused")
        seen.add(text)
        names[number] = text or f"class_{number}"
    return names


def _numbered(reading: _Reading, given: object) -> dict[int, object]:
    """The names by number, in order, of a list or of a mapping whose keys are texts."""
    if isinstance(given, list):
        return dict(enumerate(given))
    if not isinstance(given, dict):
        return {}
    found = {int(key): name for key, name in given.items() if _is_number(key)}
    if len(found) != len(given) or set(found) != set(range(len(given))):
        listed = ", ".join(map(one_line, given))
        what = f"names are numbered {listed[:80]}, not 0 to {len(given) - 1}"
        reading.tell("VD309", what, action="refused")
    return dict(sorted(found.items()))


def _is_number(key: object) -> bool:
    text = str(key)
    return text.isascii() and text.isdigit() and int(text[:9]) < MAX_CLASSES and len(text) < 10


def _classes_file(reading: _Reading) -> list[str]:
    flat = (place for places in reading.splits.values() for place in places)
    for folder in (reading.home, reading.home / "labels", *flat):
        try:
            path = reading.folder(folder).find("classes.txt", one_line(folder))
            if path is not None:
                return [line for line in read_text(path).splitlines() if line.strip()]
        except DataError as error:
            reading.tell("VD601", str(error), action="refused")
    return []


def _images(reading: _Reading, place: Path, split: str, *, alone: bool) -> Iterator[RawImage]:
    """The images of a folder or list, with their objects. Unless the split has that place alone,
    they are called by their paths in the set: other places may have the same names."""
    is_list = place.is_file()
    base = reading.root if is_list else place
    try:
        names = _listed(place, base) if is_list else walk_files(place, IMAGE_SUFFIXES)
    except DataError as error:
        reading.tell("VD601", str(error), split, action="refused")
        return
    before = "" if alone or is_list else f"{place.relative_to(reading.home).as_posix()}/"
    seen: set[str] = set()
    for name in names:
        told = before + name
        if name in seen:
            reading.tell("VD319", f"{place.name} lists it again", split, told, action="left out")
            continue
        seen.add(name)
        try:
            path, label, other = _files(reading, base, name)
        except DataError as error:
            reading.tell("VD607", str(error), split, told, action="refused")
            continue
        boxes = _boxes(reading, label, split, told)
        if boxes is None:
            continue
        if path and label is None:
            reading.tell("VD606", "no label file", split, told, action="background")
        if path and label and other:
            reading.tell("VD610", f"that of {one_line(other.name)} too", split, told)
        yield RawImage(split, str(base / name), one_line(told), path, boxes, annotation=label)


def _listed(file: Path, root: Path) -> list[str]:
    """The image paths in a text file, made relative to `root` where they lie below it."""
    lines = (line.strip() for line in read_text(file).splitlines())
    return [below(root, line) for line in lines if line]


def _files(
    reading: _Reading, base: Path, name: str
) -> tuple[Path | None, Path | None, Path | None]:
    """An image, its label file, and another image that has that too; None for what is not there.
    Raises `DataError`."""
    images = reading.folder(base)
    path = images.find(name, one_line(name))
    beside = PurePosixPath(name).with_suffix(".txt")
    for place, label in dict.fromkeys(
        (label_place(base, PurePosixPath(name), reading.home), (base, beside))
    ):
        found = reading.folder(place).find(str(label), one_line(name))
        # A label file of another spelling belongs to the image of that spelling, if there is one.
        if found is not None and found.stem != label.stem:
            found = None if images.has_picture(str(beside.with_name(found.stem))) else found
        if found is not None:
            first = reading.labels.setdefault(found, base / name)
            return path, found, None if first == base / name else first
    return path, None, None


def _boxes(
    reading: _Reading, file: Path | None, split: str, image: str
) -> tuple[RawBox, ...] | None:
    """The objects of a label file; None, told already, if it cannot be read."""
    if file is None:
        return ()
    try:
        lines = read_text(file).splitlines()
    except DataError as error:
        reading.tell("VD601", str(error), split, image, action="refused")
        return None
    boxes: list[RawBox] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, given, fault = read_line(line, reading.key_points)
        if fault:
            reading.tell(*fault, split, image, number, "left out")
            if fault[0] != "VD301":
                continue
        name = _class_name(reading, label)
        if name is None and not fault:
            what = f"class {label}, but there are {len(reading.names)} names"
            reading.tell("VD301", what, split, image, number, "refused")
        more = reading.key_points is not None and len(line.split()) > 5
        boxes.append(RawBox(number, name, given, reread=more))
    return tuple(boxes)


def _class_name(reading: _Reading, number: int | None) -> str | None:
    if number is None:
        return None
    if not reading.names and number < MAX_CLASSES:
        return f"class_{number}"
    return reading.names.get(number)


def _tell_key_points(reading: _Reading, splits: Mapping[str, Sequence[RawImage]]) -> None:
    boxes = (box for images in splits.values() for image in images for box in image.boxes)
    count = hold_key_points(box.given for box in boxes)
    if count is not None:
        shapes = [[n // each, each] for each in (2, 3) if (n := count - 4) % each == 0]
        what = f"lines of {count} numbers, a box and points in it; kpt_shape may be "
        reading.tell("VD612", what + " or ".join(map(str, shapes)), action="refused")


def _tell_left_over(reading: _Reading) -> None:
    """The label files whose image is not there, or in no split."""
    places = {label.parent: image.parent for label, image in reading.labels.items()}
    for folder, images in sorted(places.items()):
        if any(folder == place for places in reading.splits.values() for place in places):
            continue  # labels beside their images: what else lies there may be anything
        pictures = reading.folder(images)
        for path in sorted(folder.glob("*.[tT][xX][tT]")):
            if path in reading.labels or path.name == "classes.txt":
                continue
            if pictures.has_picture(path.stem):
                reading.tell("VD605", "in no split", image=path.stem)
            else:
                reading.tell("VD604", f"{one_line(path.name)} has no image", image=path.stem)
