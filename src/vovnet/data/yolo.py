"""Read the YOLO layout: image folders, a label file for each image, and `data.yaml`."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vovnet.data._common import (
    Box,
    Folder,
    check_unique,
    clip_box,
    make_record,
    one_line,
    read_text,
    unknown_split,
)
from vovnet.data.images import IMAGE_SUFFIXES, image_size
from vovnet.data.record import Dataset, Problem, Record
from vovnet.data.yaml_file import read_yaml
from vovnet.errors import DataError, ImageError

YAML_SUFFIXES = (".yaml", ".yml")
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class _Layout:
    """Where a set's images are: per split, folders of images and text files that list them.

    All lie below `home`; the lists are relative to `root`.
    """

    home: Path
    root: Path
    splits: dict[str, list[Path]]
    names: tuple[str, ...]


def find_yaml(source: Path) -> Path | None:
    """The `data.yaml` of a YOLO folder, or `source` itself if it is one."""
    if source.suffix.lower() in YAML_SUFFIXES:
        return source
    return next((source / name for name in _YAML_NAMES if os.path.isfile(source / name)), None)


def yolo_splits(source: Path) -> tuple[str, ...]:
    """The splits of a YOLO folder or `data.yaml` whose images exist; raises `DataError`."""
    return tuple(_layout(source).splits)


def read_yolo(source: str | Path, split: str, names: Sequence[str] | None = None) -> Dataset:
    """The images of `split` with their objects; image ids are 1..n in the order of their paths.

    `source` is a `data.yaml` (path, train, val, test, names; a folder or a list of images each),
    or a folder with one, or with `images/<split>` and `labels/<split>`, or with `<split>/images`
    and `<split>/labels`. Class names come from the YAML or `classes.txt`, else from `names`.
    The label file of `…/images/x.jpg` is `…/labels/x.txt`: lines "class cx cy w h" in fractions
    of the image as displayed, or "class x1 y1 x2 y2 x3 y3 …", a polygon, which is kept as
    segmentation beside its box. An image without label file has no objects.

    What a `data.yaml` names must lie in the YAML's own folder, links resolved; what does not exist
    counts as not named.

    Lines that cannot be used and images that cannot be read are left out, boxes are clipped, and
    each is told in `Dataset.problems`. Raises `DataError` for an unknown or empty split, a class
    number without a name, a name that occurs twice, files and places that leave the data folder,
    and bad YAML.
    """
    source = Path(source)
    if not os.path.exists(source):
        raise DataError(f"{one_line(source)}: no such file or folder; check the path")
    layout = _layout(source)
    names = layout.names or tuple(names or ())
    if not names:
        raise DataError(f"{one_line(source)}: no class names; add a data.yaml with names:")
    if split not in layout.splits:
        raise unknown_split(source, split, layout.splits)
    problems: list[Problem] = []
    records: list[Record] = []
    for path, label_file in _files(layout, split, problems):
        try:
            size = image_size(path)
        except ImageError as error:
            problems.append(Problem(one_line(path.name), str(error), "skipped"))
            continue
        records.append(_record(len(records) + 1, path, size, label_file, len(names), problems))
    if not records:
        reason = f" ({problems[0].what})" if problems else ""
        raise DataError(f"{one_line(source)}: split {split} has no images{reason}; check the path")
    return Dataset(layout.root, split, "yolo", names, tuple(records), problems=tuple(problems))


def _layout(source: Path) -> _Layout:
    file = find_yaml(source)
    if file is None:
        return _Layout(source, source, folder_splits(source), classes_file(source))
    config = read_yaml(file)
    if not isinstance(config, dict):
        raise DataError(f"{one_line(file)}: not a mapping with train, val and names")
    root, splits = yaml_splits(config, file)
    return _Layout(file.parent, root, splits, _names(config, file))


def yaml_splits(config: dict[Any, Any], file: Path) -> tuple[Path, dict[str, list[Path]]]:
    """What the lists of a `data.yaml` are relative to, and its splits that exist.

    Raises `DataError` for one that leaves the folder of the YAML.
    """
    path, root = config.get("path"), file.parent
    if isinstance(path, str) and os.path.isdir(file.parent / path):
        root = _place(file, file.parent, path) or root
    splits: dict[str, list[Path]] = {}
    for split in ("train", "val", "valid", "test"):
        value = config.get(split)
        given = value if isinstance(value, list) else [value]
        places = [_place(file, root, text) for text in given if isinstance(text, str) and text]
        found = [place for place in places if place is not None]
        if found and len(found) == len(places):
            splits[split] = found
    return root, splits


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


def _names(config: dict[Any, Any], file: Path) -> tuple[str, ...]:
    names, count = config.get("names"), config.get("nc")
    if names is None and isinstance(count, int) and 0 < count <= MAX_CLASSES:
        return tuple(f"class_{label}" for label in range(count))
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{one_line(file)}: names must be numbered 0 to {len(names) - 1}")
        names = [names[label] for label in range(len(names))]
    if not isinstance(names or [], list) or not all(isinstance(n, (str, int)) for n in names or ()):
        raise DataError(f"{one_line(file)}: names is not a list of class names")
    texts = tuple(str(name) for name in names or ())
    check_unique(texts, file)
    return texts


def folder_splits(root: Path) -> dict[str, list[Path]]:
    """The splits of a folder without `data.yaml`, going by its folders."""
    splits: dict[str, list[Path]] = {}
    if not os.path.isdir(root):
        return splits
    for images in sorted([*root.glob("images/*"), *root.glob("*/images")]):
        split = images.name if images.parent.name == "images" else images.parent.name
        if images.is_dir() and label_place(images, PurePosixPath(), root)[0].is_dir():
            splits[split] = [images]
    if not splits and (root / "images").is_dir() and (root / "labels").is_dir():
        splits["all"] = [root / "images"]
    return splits


def classes_file(root: Path) -> tuple[str, ...]:
    """The names in a folder's `classes.txt`, one a line; raises `DataError`."""
    for folder in (root, root / "labels"):
        path = Folder(folder, root).find("classes.txt", one_line(root))
        if path is not None:
            names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
            check_unique(names, path)
            return names
    return ()


def _files(
    layout: _Layout, split: str, problems: list[Problem]
) -> Iterator[tuple[Path, Path | None]]:
    """Each image of the split with its label file, None where it has none."""
    folders: dict[Path, Folder] = {}
    for place in layout.splits[split]:
        is_list = os.path.isfile(place)
        base = layout.root if is_list else place
        for name in listed_images(place, base) if is_list else walked_images(place):
            path = folders.setdefault(base, Folder(base, layout.home)).find(name, f"split {split}")
            if path is None:
                problems.append(Problem(place.name, f"no such file {one_line(name)}", "skipped"))
                continue
            labels, label = label_place(base, PurePosixPath(name), layout.home)
            folder = folders.setdefault(labels, Folder(labels, layout.home))
            yield path, folder.find(str(label), one_line(name))


def listed_images(file: Path, root: Path) -> list[str]:
    """The image paths in a text file, made relative to `root` where they lie below it."""
    lines = (line.strip() for line in read_text(file).splitlines())
    prefix = f"{root.resolve().as_posix()}/"
    return [line.removeprefix(prefix) for line in lines if line]


def walked_images(folder: Path) -> list[str]:
    """The images in a folder and those below it, relative to it."""
    found: list[str] = []
    for parent, _, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        found += [
            (inside / file).as_posix() for file in files if file.lower().endswith(IMAGE_SUFFIXES)
        ]
    return sorted(found)


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


def _record(
    image_id: int,
    path: Path,
    size: tuple[int, int],
    label_file: Path | None,
    classes: int,
    problems: list[Problem],
) -> Record:
    rows: list[tuple[Box, int]] = []
    polygons: list[list[list[float]]] = []
    lines = read_text(label_file).splitlines() if label_file else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{one_line(label_file.name if label_file else '')} line {number}"
        try:
            label, points = _numbers(line)
        except ValueError as error:
            problems.append(Problem(where, one_line(error), "skipped"))
            continue
        if label >= classes:
            raise DataError(
                f"{where}: class {label}, but only {classes} names (0 to {classes - 1})"
            )
        box, fault = clip_box(line_box(points, size), size)
        if fault:
            problems.append(Problem(where, fault, "clipped" if box else "skipped"))
        if box:
            rows.append((box, label))
            polygons.append(_polygon(points, size))
    return make_record(path, image_id, size, rows, segmentations=polygons if any(polygons) else ())


def _numbers(line: str) -> tuple[int, list[float]]:
    """The class of a line and its numbers; `ValueError` says what is wrong with it."""
    first, *rest = line.split()
    label = float(first)
    if not label.is_integer() or label < 0:
        raise ValueError(f"class {first} is not a whole number from 0 on")
    if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
        raise ValueError(f"{len(rest)} numbers behind the class: neither a box nor a polygon")
    points = [float(text) for text in rest]
    if not all(map(math.isfinite, points)):
        raise ValueError("a number that is not finite")
    return int(label), points


def line_box(points: list[float], size: tuple[int, int]) -> Box:
    """The xyxy box in pixels of four numbers (cx, cy, w, h), or around a polygon."""
    height, width = size
    if len(points) == 4:
        cx, cy, w, h = points
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    else:
        xs, ys = points[::2], points[1::2]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return x1 * width, y1 * height, x2 * width, y2 * height


def _polygon(points: list[float], size: tuple[int, int]) -> list[list[float]]:
    """COCO's list of one polygon in pixels, inside the image; empty for a box."""
    if len(points) == 4:
        return []
    sides = (size[1], size[0])
    return [[min(max(p, 0.0), 1.0) * sides[i % 2] for i, p in enumerate(points)]]
