"""Read COCO's detection JSON: images, annotations and categories."""

import glob
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from vovnet.data._common import (
    Box,
    Folder,
    Frame,
    check_unique,
    leaves,
    make_record,
    one_line,
    place_box,
    read_text,
    turned,
)
from vovnet.data.images import annotated_frame
from vovnet.data.record import Dataset, Problem, Record
from vovnet.errors import DataError, ImageError

_MAX_JSON_BYTES = 4_000_000_000
_ROBOFLOW = "_annotations.coco.json"
_LOOKED_AT = 20  # images tried to find their folder: some of a set may be missing

_Object = tuple[str, dict[str, Any]]  # how problems name it, and the annotation


def coco_files(path: Path) -> dict[str, Path]:
    """The annotation file of each split in a folder; of a JSON file, that file alone.

    Understood are `instances_<split>.json`, in the folder or its `annotations/`, and
    `<split>/_annotations.coco.json`.
    """
    if path.suffix.lower() == ".json":
        return {split_name(path): path}
    if not os.path.isdir(path):
        return {}
    patterns = ("instances_*.json", "annotations/instances_*.json", f"*/{_ROBOFLOW}", _ROBOFLOW)
    return {split_name(file): file for p in reversed(patterns) for file in sorted(path.glob(p))}


def read_coco(
    json_path: str | Path,
    images_dir: str | Path | None = None,
    *,
    split: str = "",
    check_sizes: bool = True,
) -> Dataset:
    """The images of a COCO file with their objects; image ids are the file's.

    Without `images_dir` the usual places beside the file are tried. Links may lead anywhere in
    the data set: the folder of the file, or the one above where that is called annotations.

    The size in the file may be that of the image as displayed or, where EXIF turns it on its
    side, as stored: boxes are then turned too, and told as "turned". `check_sizes=False` saves
    reading every image's header, and takes a size in the file at its word.

    Boxes become xyxy in pixels, clipped to the image; areas, crowd marks and segmentations are
    kept. Labels count from 0 in the order of the category ids, which `Dataset.category_ids` keeps.
    `split` is only a name; by default the one that `coco_files` gives the file.

    Annotations that cannot be used are clipped or left out, images without a file are left out,
    and each is told in `Dataset.problems` (annotations are named by their id). Raises `DataError`
    for bad JSON or structure, ids or categories that occur twice, names that leave the data set,
    a size that is not the image's, masks of an image whose boxes would have to be turned, and no
    images.
    """
    json_path = Path(json_path)
    split = split or split_name(json_path)
    content = load_coco(json_path)
    file = one_line(json_path.name)
    problems: list[Problem] = []
    categories = _by_id(content, "categories", file)
    ids = sorted(categories)
    names = tuple(_text(categories[i], "name", f"{file} category {i}") for i in ids)
    check_unique(names, json_path)
    labels = {category: label for label, category in enumerate(ids)}
    images = _by_id(content, "images", file)
    objects: dict[int, list[_Object]] = defaultdict(list)
    for number, item in enumerate(content["annotations"], start=1):
        fault = _unusable(item, images, labels)
        if fault:
            problems.append(Problem(_where(file, item, number), fault, "skipped"))
        else:
            objects[item["image_id"]].append((_where(file, item, number), item))
    root = coco_root(json_path)
    images_dir = Path(images_dir) if images_dir else find_images(json_path, root, split, images)
    folder = Folder(images_dir, root)
    records: list[Record] = []
    for image_id, image in images.items():
        found = _image(folder, image, f"{file} image {image_id}", problems, check_sizes)
        if found is not None:
            records.append(_record(image_id, *found, objects[image_id], labels, problems))
    if not records:
        raise DataError(f"{one_line(json_path)}: no image of it is in {one_line(images_dir)}")
    return Dataset(
        json_path.parent, split, "coco", names, tuple(records), tuple(ids), tuple(problems)
    )


def split_name(path: Path) -> str:
    """The split that a COCO file is for, going by its name."""
    return path.parent.name if path.name == _ROBOFLOW else path.stem.removeprefix("instances_")


def coco_root(json_path: Path) -> Path:
    """The folder of the whole data set."""
    here = json_path.parent
    return here.parent if here.name == "annotations" else here


def find_images(
    json_path: Path, root: Path, split: str, images: Mapping[int, Mapping[str, Any]]
) -> Path:
    """The first of the usual folders that holds one of the first images; raises `DataError`."""
    here = json_path.parent
    places = [root / "images" / split, root / "images", root / split, here, root]
    places[2:2] = sorted(root.glob(f"{glob.escape(split)}[12][0-9][0-9][0-9]"))
    names = [image.get("file_name") for image in islice(images.values(), _LOOKED_AT)]
    names = [name for name in names if isinstance(name, str) and not leaves(name)]
    for place in places:
        folder = Folder(place, root)
        if any(folder.find(name, json_path.name) for name in names):
            return place
    tried = ", ".join(dict.fromkeys(one_line(place) for place in places))
    raise DataError(f"{one_line(json_path)}: its images are in none of {tried}; move them there")


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


def _by_id(content: Mapping[str, Any], key: str, file: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(content[key], start=1):
        identifier = item.get("id") if isinstance(item, dict) else None
        if not is_id(identifier):
            raise DataError(f"{file} {key} entry {number}: its id is not a whole number")
        if identifier in found:
            raise DataError(f"{file} {key} entry {number}: id {identifier} occurs twice")
        found[identifier] = item
    return found


def is_id(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number that fits 64 bits."""
    return isinstance(value, int) and type(value) is not bool and abs(value) < 2**63


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: no {key}")
    return value


def _where(file: str, item: object, number: int) -> str:
    identifier = item.get("id") if isinstance(item, dict) else None
    return f"{file} annotation {identifier if is_id(identifier) else f'number {number}'}"


def _unusable(item: object, images: Mapping[int, Any], labels: Mapping[int, int]) -> str:
    """Why an annotation cannot be placed, or ""."""
    if not isinstance(item, dict):
        return "not an object"
    image, category = item.get("image_id"), item.get("category_id")
    if not is_id(image) or image not in images:
        return f"unknown image {one_line(repr(image))[:50]}"
    if not is_id(category) or category not in labels:
        return f"unknown category {one_line(repr(category))[:50]}"
    return ""


def _image(
    folder: Folder, image: Mapping[str, Any], where: str, problems: list[Problem], check: bool
) -> tuple[Path, Frame] | None:
    """The image file and the frame of its boxes, or None, told in `problems`."""
    name = _text(image, "file_name", where)
    path = folder.find(name, where)
    if path is None:
        problems.append(Problem(where, f"no such file {one_line(name)}", "skipped"))
        return None
    height, width = image.get("height"), image.get("width")
    given = None
    if is_id(height) and is_id(width) and height > 0 and width > 0:
        given = (height, width)
    try:
        frame = annotated_frame(path, given, where, check=check)
    except ImageError as error:
        problems.append(Problem(where, str(error), "skipped"))
        return None
    if frame.orientation != 1:
        problems.append(turned(where, frame.orientation))
    return path, frame


def _record(
    image_id: int,
    path: Path,
    frame: Frame,
    objects: list[_Object],
    labels: Mapping[int, int],
    problems: list[Problem],
) -> Record:
    rows: list[tuple[Box, int]] = []
    kept: list[dict[str, Any]] = []
    for where, item in objects:
        if frame.orientation != 1 and item.get("segmentation"):
            raise DataError(
                f"{where}: a mask on the stored pixels of {one_line(path)} cannot be turned by its "
                f"EXIF orientation {frame.orientation}; remove that from the file's EXIF"
            )
        given = _box(item.get("bbox"))
        if given is None:
            problems.append(Problem(where, "bbox is not four finite numbers", "skipped"))
            continue
        box = place_box(given, frame, where, problems)
        if box:
            rows.append((box, labels[item["category_id"]]))
            kept.append(item)
    masks = [item.get("segmentation") or [] for item in kept]
    return make_record(
        path,
        image_id,
        frame.size,
        rows,
        crowd=[item.get("iscrowd") in (1, True) for item in kept],
        areas=[_area(item, box) for item, (box, _) in zip(kept, rows, strict=True)],
        segmentations=masks if any(masks) else (),
    )


def _box(value: object) -> Box | None:
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        return None
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number of sensible size."""
    # False for NaN and infinity too; a bool is an int to `isinstance`.
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) < 1e12


def _area(item: Mapping[str, Any], box: Box) -> float:
    """The annotation's own area (of its mask, px²), or that of its box."""
    area = item.get("area")
    if is_number(area) and area >= 0:
        return float(area)
    return (box[2] - box[0]) * (box[3] - box[1])
