"""Read COCO's detection JSON: images, annotations and categories."""

import glob
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from vovnet.data.finding import Action, Finding
from vovnet.data.folder import Folder, below, walk_files
from vovnet.data.raw import RawBox, RawImage, RawSet, numbers
from vovnet.errors import DataError
from vovnet.images import IMAGE_SUFFIXES
from vovnet.text import one_line, read_text, short

_MAX_JSON_BYTES = 4_000_000_000
_NAMES = ("instances_*", "instances")
_ROBOFLOW = "_annotations.coco.json"
_FIFTYONE = "labels.json"  # beside data/
_LOOKED_AT = 20  # images tried to find their folder: some of a set may be missing


def coco_files(path: Path) -> dict[str, Path]:
    """The annotation file of each split in a folder; of a JSON file, that file alone.

    Understood are `instances_<split>.json`, or `instances.json` alone, in the folder or its
    `annotations/`,
    `<split>/_annotations.coco.json` (Roboflow), and `labels.json` beside `data/` (FiftyOne).
    """
    if path.suffix.lower() == ".json":
        return {split_name(path): path}
    if not os.path.isdir(path):
        return {}
    patterns = [
        f"{folder}{name}.json" for folder in ("", "annotations/", "Annotations/") for name in _NAMES
    ]
    patterns += [f"*/{_ROBOFLOW}", _ROBOFLOW]
    files = [file for p in reversed(patterns) for file in sorted(path.glob(p))]
    fiftyone = [*path.glob(f"*/{_FIFTYONE}"), *path.glob(_FIFTYONE)]
    files += [file for file in sorted(fiftyone) if (file.parent / "data").is_dir()]
    return {split_name(file): file for file in files}


def split_name(path: Path) -> str:
    """The split that a COCO file is for, going by its name."""
    if path.name in (_ROBOFLOW, _FIFTYONE):
        return path.parent.name
    return "all" if path.stem == "instances" else path.stem.removeprefix("instances_")


def coco_root(json_path: Path) -> Path:
    """The folder of the whole data set."""
    here = json_path.parent
    return here.parent if here.name.lower() == "annotations" else here


def load_coco(path: Path) -> dict[str, Any]:
    """The parsed file, its three lists checked to be there; raises `DataError`."""
    name = one_line(path)
    try:
        content = json.loads(read_text(path, _MAX_JSON_BYTES))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}: bad JSON, line {error.lineno} column {error.colno} ({error.msg}); mend it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: bad JSON ({one_line(error)}); mend it") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{name}: no list {key!r}; give a COCO detection file (instances_*)")
    return content


def is_id(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number that fits 64 bits."""
    return isinstance(value, int) and type(value) is not bool and abs(value) < 2**63


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number of sensible size."""
    # False for NaN and infinity too; a bool is an int to `isinstance`.
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) < 1e12


@dataclass
class _Split:
    """One JSON file while it is read; `names` are those of its categories."""

    name: str
    file: Path
    content: Mapping[str, Any]
    findings: list[Finding] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def tell(
        self,
        id_: str,
        what: str,
        image: str = "",
        number: int | None = None,
        action: Action = "",
    ) -> None:
        self.findings.append(Finding(id_, what, self.name, image, number, action))

    def entries(self, key: str, action: Action = "refused") -> Iterator[tuple[int, dict[str, Any]]]:
        """The entries of a list that are objects, with their number from 1."""
        for number, item in enumerate(self.content[key], start=1):
            if isinstance(item, dict):
                yield number, item
            else:
                what = f"{key} entry {number} is {short(item)}, no object"
                self.tell("VD603", what, action=action)


def read_coco(path: Path, wanted: Sequence[str] = ()) -> RawSet:
    """The splits of a COCO set, or those `wanted`; images in no file are told if none is.

    Links may lead anywhere in the data set: the folder of the file, or the one above where that is
    called annotations.
    """
    splits: dict[str, tuple[RawImage, ...]] = {}
    categories: dict[str, dict[int, str]] = {}
    findings: list[Finding] = []
    pools: dict[Path, set[str]] = defaultdict(set)
    files = coco_files(path)
    for name in wanted or files:
        try:
            split = _Split(name, files[name], load_coco(files[name]))
        except DataError as error:
            findings.append(Finding("VD601", str(error), name, action="refused"))
            continue
        split.names = _categories(split)
        categories[name] = split.names
        splits[name] = _images(split, pools)
        findings += split.findings
    whole = not wanted and path.is_dir() and len(splits) == len(files)
    if whole:  # else the images of another file would seem to be in none
        findings += _left_over(pools)
    names = dict.fromkeys(name for of_split in categories.values() for name in of_split.values())
    home = path if path.is_dir() else coco_root(path)
    told = tuple(findings)
    return RawSet("coco", path, home, tuple(names), splits, told, categories, files, bool(wanted))


# ---- classes


def _categories(split: _Split) -> dict[int, str]:
    """The names by id, in the order of the ids; a class without a name gets one."""
    names: dict[int, str] = {}
    seen: set[str] = set()
    for number, item in split.entries("categories"):
        id_, name = item.get("id"), item.get("name")
        name = name.strip() if isinstance(name, str) else name
        if not is_id(id_):
            what = f"categories entry {number} has the id {short(id_)}"
            split.tell("VD317", what, action="refused")
        elif id_ in names:
            what = f"category id {id_} is {names[id_]!r} and {short(name)}"
            split.tell("VD316", what, action="refused")
        elif not isinstance(name, str) or not name.strip():
            split.tell("VD302", f"category {id_} has the name {short(name)}", action="refused")
            names[id_] = f"class_{id_}"
        else:
            if name in seen:
                what = f"category {id_} has the name of another, {short(name)}"
                split.tell("VD303", what, action="refused")
            seen.add(name)
            names[id_] = name
    if (group := _group(split)) in names:
        split.tell("VD320", f"category {group} {short(names.pop(group))}", action="left out")
    return dict(sorted(names.items()))


def _group(split: _Split) -> int | None:
    """The id of a category that only stands for all others (Roboflow writes one): it is called like
    the supercategory of each, and no annotation has it."""
    named = (item for item in split.content["categories"] if isinstance(item, dict))
    items = [item for item in named if isinstance(item.get("name"), str)]
    above = [item.get("supercategory") for item in items]
    groups = [item for item in items if item["name"] in above and is_id(item.get("id"))]
    if len(groups) != 1 or len(items) < 2:
        return None
    [group] = groups
    others = [item for item in items if item is not group]
    if any(item.get("supercategory") != group["name"] for item in others):
        return None
    found = (item for item in split.content["annotations"] if isinstance(item, dict))
    used = any(item.get("category_id") == group["id"] for item in found)
    return None if used else group["id"]


# ---- images


def _images(split: _Split, pools: dict[Path, set[str]]) -> tuple[RawImage, ...]:
    entries, same = _entries(split)
    objects = _objects(split, entries, same)
    names = [entry["file_name"] for entry in entries.values()]
    pictures = _Pictures(split.file, split.name, names)
    images: list[RawImage] = []
    for id_, entry in entries.items():
        name = entry["file_name"]
        try:
            path = pictures.find(name)
        except DataError as error:
            split.tell("VD607", str(error), one_line(name), action="refused")
            continue
        key = f"{split.name} {id_}"
        boxes = tuple(objects[id_])
        size = _size(entry)
        images.append(RawImage(split.name, key, one_line(name), path, boxes, size, source=entry))
    named = (item.get("file_name") for item in split.content["images"] if isinstance(item, dict))
    pools[pictures.place] |= {f"{pictures.place}/{name}" for name in named}
    pools[pictures.place] |= {str(image.path) for image in images if image.path is not None}
    return tuple(images)


def picture_places(file: Path, split: str) -> list[Path]:
    """The folders where the pictures of a JSON file may be, in the order of the search."""
    here, root = file.parent, coco_root(file)
    years = sorted(root.glob(f"{glob.escape(split)}[12][0-9][0-9][0-9]"))
    own = [root / "images" / split, root / split, *years]
    return list(dict.fromkeys([*own, root / "images", here, root, here / "data"]))


class _Pictures:
    """The pictures that a JSON file names."""

    def __init__(self, file: Path, split: str, names: Sequence[str]) -> None:
        self._file, self._where = file, one_line(file.name)
        self._here, self._root = file.parent, coco_root(file)
        self._names = [below(self._root, name) for name in names]
        self._basenames: Counter[str] | None = None
        self.place = self._find_place(split) or self._root / "images"
        self._folder = Folder(self.place, self._root)
        self._home = Folder(self._root)

    def find(self, name: str) -> Path | None:
        """The picture of a `file_name`; raises `DataError` for one that leaves the data set.

        It is looked up where the others are, then from the JSON file on, then by its last part
        where no other image has that.
        """
        name = below(self._root, name)
        if ".." in PurePosixPath(name).parts:
            return self._home.find(self._from_root(name), self._where)
        found = self._folder.find(name, self._where) or self._home.find(name, self._where)
        last = PurePosixPath(name).name
        if found is None and last != name and self._is_unique(last):
            return self._folder.find(last, self._where)
        return found

    def _from_root(self, name: str) -> str:
        """A name with ".." in it, which counts from the JSON file, as one from the root."""
        full = os.path.normpath(os.path.join(os.path.abspath(self._here), name))
        return os.path.relpath(full, os.path.abspath(self._root)).replace(os.sep, "/")

    def _is_unique(self, last: str) -> bool:
        if self._basenames is None:
            self._basenames = Counter(PurePosixPath(name).name for name in self._names)
        return self._basenames[last] == 1

    def _find_place(self, split: str) -> Path | None:
        """The usual folder that holds most of the first images, the first of equal ones."""
        first = [PurePosixPath(name) for name in self._names[:_LOOKED_AT]]
        whole = [str(name) for name in first if ".." not in name.parts and not name.is_absolute()]
        for names in (whole, [name.name for name in first]):
            held = {
                place: sum(_found(Folder(place, self._root), name, self._where) for name in names)
                for place in picture_places(self._file, split)
            }
            best = max(held, key=lambda place: held[place])
            if held[best]:
                return best
        return None


def _found(folder: Folder, name: str, where: str) -> bool:
    try:
        return folder.find(name, where) is not None
    except DataError:  # told when the image itself is looked up
        return False


def _entries(split: _Split) -> tuple[dict[int, dict[str, Any]], dict[int, int]]:
    """The images by id, each file once; and for those listed again, the id of the first."""
    entries: dict[int, dict[str, Any]] = {}
    ids: dict[str, int] = {}
    same: dict[int, int] = {}
    for number, item in split.entries("images"):
        id_, name = item.get("id"), item.get("file_name")
        if not isinstance(name, str) or not name:
            what = f"images entry {number} has the file_name {short(name)}"
            split.tell("VD603", what, action="refused")
        elif not is_id(id_):
            what = f"images entry {number} has the id {short(id_)}"
            split.tell("VD317", what, one_line(name), action="refused")
        elif id_ in entries and entries[id_]["file_name"] == name:
            split.tell("VD319", f"image id {id_} again", one_line(name), action="left out")
        elif id_ in entries or id_ in same:
            other = one_line(entries[same.get(id_, id_)]["file_name"])
            what = f"image id {id_} is that of {one_line(name)} too"
            split.tell("VD315", what, other, action="refused")
        elif name in ids:
            what = f"image ids {ids[name]} and {id_}"
            split.tell("VD319", what, one_line(name), action="left out")
            same[id_] = ids[name]
        else:
            entries[id_], ids[name] = item, id_
    return entries, same


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    if is_id(height) and is_id(width) and height > 0 and width > 0:
        return height, width
    return None


def _left_over(pools: Mapping[Path, set[str]]) -> Iterator[Finding]:
    """The images in the folders of the set that no JSON names."""
    for folder, found in pools.items():
        for name in walk_files(folder, IMAGE_SUFFIXES):
            if str(folder / name) not in found:
                what = f"in {one_line(folder.name)}, in no JSON"
                yield Finding("VD117", what, image=one_line(name))


# ---- objects


def _objects(
    split: _Split, entries: Mapping[int, Mapping[str, Any]], same: Mapping[int, int]
) -> dict[int, list[RawBox]]:
    """The objects of each image id."""
    objects: dict[int, list[RawBox]] = defaultdict(list)
    seen: set[int] = set()
    shown = {id_: one_line(entry["file_name"]) for id_, entry in entries.items()}
    for position, item in split.entries("annotations", "left out"):
        image_id = item.get("image_id")
        image = same.get(image_id, image_id) if is_id(image_id) else None
        name = shown.get(image, "") if image is not None else ""
        number = _number(split, item, position, name, seen)
        if image is None or not name:
            what = f"image_id {short(image_id)}"
            split.tell("VD318", what, number=number, action="left out")
        else:
            objects[image].append(_object(split, item, number, name))
    return objects


def _number(
    split: _Split, item: Mapping[str, Any], position: int, image: str, seen: set[int]
) -> int:
    """The annotation's id, or its position where it has none."""
    id_ = item.get("id")
    if not is_id(id_):
        split.tell("VD317", f"annotations entry {position} has the id {short(id_)}", image)
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
        split.tell("VD301", f"category_id {short(category)}", image, number, "left out")
    plain = isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox))
    return RawBox(
        number,
        name,
        numbers(bbox) if plain else (),
        mask=item.get("segmentation"),
        area=item.get("area"),
        crowd=item.get("iscrowd") in (1, True),
        difficult=item.get("ignore") in (1, True),
        source=item,
    )
