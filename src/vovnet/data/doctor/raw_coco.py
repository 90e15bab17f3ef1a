"""Read COCO's JSON as it is written: whatever is wrong becomes a finding, nothing an error."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vovnet.data._common import Folder, one_line
from vovnet.data.coco import coco_files, coco_root, find_images, is_id, is_number, load_coco
from vovnet.data.doctor.raw import RawBox, RawImage, RawSet, numbers
from vovnet.data.doctor.report import Finding
from vovnet.data.yolo import walked_images
from vovnet.errors import DataError


@dataclass
class _Split:
    """One JSON file while it is read; `names` are those of its categories."""

    name: str
    file: Path
    content: Mapping[str, Any]
    findings: list[Finding] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def tell(self, id_: str, what: str, image: str = "", number: int | None = None) -> None:
        self.findings.append(Finding(id_, what, self.name, image, number))

    def entries(self, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The entries of a list that are objects, with their number from 1."""
        for number, item in enumerate(self.content[key], start=1):
            if isinstance(item, dict):
                yield number, item
            else:
                self.tell("VD603", f"{key} entry {number} is {_short(item)}, no object")


def read_raw_coco(path: Path, wanted: Sequence[str] = ()) -> RawSet:
    """The splits of a COCO set, or those `wanted`; images in no file are told if none is."""
    splits: dict[str, tuple[RawImage, ...]] = {}
    categories: dict[str, dict[int, str]] = {}
    findings: list[Finding] = []
    pools: dict[Path, set[str]] = defaultdict(set)
    files = coco_files(path)
    for name in wanted or files:
        try:
            split = _Split(name, files[name], load_coco(files[name]))
        except DataError as error:
            findings.append(Finding("VD601", str(error), name))
            continue
        categories[name] = split.names = _categories(split)
        splits[name] = _images(split, pools)
        findings += split.findings
    whole = not wanted and path.is_dir() and len(splits) == len(files)
    if whole:  # else the images of another file would seem to be in none
        findings += _left_over(pools)
    names = dict.fromkeys(name for of_split in categories.values() for name in of_split.values())
    return RawSet("coco", path, tuple(names), splits, tuple(findings), categories, bool(wanted))


def _categories(split: _Split) -> dict[int, str]:
    """The names by id, in the order of the ids; a class without a name gets one."""
    names: dict[int, str] = {}
    for number, item in split.entries("categories"):
        id_, name = item.get("id"), item.get("name")
        if not is_id(id_):
            split.tell("VD317", f"categories entry {number} has the id {_short(id_)}")
        elif id_ in names:
            split.tell("VD316", f"category id {id_} is {names[id_]!r} and {_short(name)}")
        elif not isinstance(name, str) or not name.strip():
            split.tell("VD302", f"category {id_} has the name {_short(name)}")
            names[id_] = f"class_{id_}"
        else:
            if name in names.values():
                split.tell("VD303", f"category {id_} has the name of another, {name!r}")
            names[id_] = name
    return dict(sorted(names.items()))


def _images(split: _Split, pools: dict[Path, set[str]]) -> tuple[RawImage, ...]:
    entries, same = _entries(split)
    objects = _objects(split, entries, same)
    root = coco_root(split.file)
    try:
        place = find_images(split.file, root, split.name, entries)
    except DataError:  # each image is told as missing
        place = root / "images"
    folder = Folder(place, root)
    pools[place] |= set(_file_names(split.content["images"]))
    images: list[RawImage] = []
    for id_, entry in entries.items():
        name = entry["file_name"]
        try:
            path = folder.find(name, f"image {id_}")
        except DataError as error:
            split.tell("VD607", str(error), one_line(name))
            continue
        size = _size(entry)
        boxes = tuple(objects[id_])
        key = f"{split.name} {id_}"
        images.append(RawImage(split.name, key, one_line(name), path, boxes, size, source=entry))
    return tuple(images)


def _entries(split: _Split) -> tuple[dict[int, dict[str, Any]], dict[int, int]]:
    """The images by id, each file once; and for those listed again, the id of the first."""
    entries: dict[int, dict[str, Any]] = {}
    ids: dict[str, int] = {}
    same: dict[int, int] = {}
    for number, item in split.entries("images"):
        id_, name = item.get("id"), item.get("file_name")
        if not isinstance(name, str) or not name:
            split.tell("VD603", f"images entry {number} has the file_name {_short(name)}")
        elif not is_id(id_):
            split.tell("VD317", f"images entry {number} has the id {_short(id_)}", one_line(name))
        elif id_ in entries and entries[id_]["file_name"] == name:
            split.tell("VD319", f"image id {id_} again", one_line(name))
        elif id_ in entries or id_ in same:
            other = one_line(entries[same.get(id_, id_)]["file_name"])
            split.tell("VD315", f"image id {id_} is that of {one_line(name)} too", other)
        elif name in ids:
            split.tell("VD319", f"image ids {ids[name]} and {id_}", one_line(name))
            same[id_] = ids[name]
        else:
            entries[id_], ids[name] = item, id_
    return entries, same


def _file_names(images: Iterable[object]) -> Iterator[str]:
    for item in images:
        name = item.get("file_name") if isinstance(item, dict) else None
        if isinstance(name, str):
            yield name


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    if is_id(height) and is_id(width) and height > 0 and width > 0:
        return height, width
    return None


def _objects(
    split: _Split, entries: Mapping[int, Mapping[str, Any]], same: Mapping[int, int]
) -> dict[int, list[RawBox]]:
    """The objects of each image id."""
    objects: dict[int, list[RawBox]] = defaultdict(list)
    seen: set[int] = set()
    for position, item in split.entries("annotations"):
        image_id = item.get("image_id")
        image = same.get(image_id, image_id) if is_id(image_id) else None
        name = one_line(entries[image]["file_name"]) if image in entries else ""
        number = _number(split, item, position, name, seen)
        if image is None or not name:
            split.tell("VD318", f"image_id {_short(image_id)}", number=number)
        else:
            objects[image].append(_object(split, item, number, name))
    return objects


def _number(
    split: _Split, item: Mapping[str, Any], position: int, image: str, seen: set[int]
) -> int:
    """The annotation's id, or its position where it has none."""
    id_ = item.get("id")
    if not is_id(id_):
        split.tell("VD317", f"annotations entry {position} has the id {_short(id_)}", image)
        return position
    if id_ in seen:
        split.tell("VD314", f"annotations entry {position} has the id of another", image, id_)
    if id_ == 0:
        split.tell("VD313", f"annotations entry {position}", image, id_)
    seen.add(id_)
    return id_


def _object(split: _Split, item: dict[str, Any], number: int, image: str) -> RawBox:
    category, bbox = item.get("category_id"), item.get("bbox")
    name = split.names.get(category) if is_id(category) else None
    if name is None:
        split.tell("VD301", f"category_id {_short(category)}", image, number)
    plain = isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))
    return RawBox(
        number,
        name,
        numbers(bbox) if plain else (),
        mask=item.get("segmentation"),
        area=item.get("area"),
        crowd=item.get("iscrowd") in (1, True),
        source=item,
    )


def _left_over(pools: Mapping[Path, set[str]]) -> Iterator[Finding]:
    """The images in the folders of the set that no JSON names."""
    for folder, names in pools.items():
        for name in walked_images(folder):
            if name not in names:
                yield Finding(
                    "VD117", f"in {one_line(folder.name)}, in no JSON", image=one_line(name)
                )


def _short(value: object) -> str:
    return one_line(repr(value))[:50]
