"""Data sets on disk: their layouts, and one reader for each, which tells every fault it meets."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vovnet.data.formats.coco import coco_files, read_coco
from vovnet.data.formats.voc import flat_splits, pascal_splits, read_voc
from vovnet.data.formats.yolo import find_yaml, read_yolo, yolo_splits
from vovnet.data.raw import Layout, RawSet
from vovnet.errors import DataError
from vovnet.text import one_line

_LAYOUTS = (
    "VOC (Annotations/, ImageSets/Main/, JPEGImages/, or XML files beside their pictures), COCO "
    "(instances_<split>.json and images/) or YOLO (data.yaml, images/<split>/ and "
    "labels/<split>/, or label files beside their pictures)"
)


@dataclass(frozen=True)
class Source:
    """A data set on disk: its layout, where it is, and the splits it has.

    `missing` are those that its data.yaml names and that are not there, as it names them.
    """

    layout: Layout
    path: Path
    splits: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)


def find_source(path: str | Path) -> Source:
    """The layout and splits of the data set at `path`, a folder, a COCO JSON or a YOLO YAML.

    Raises `DataError` if there is nothing at `path`, or nothing that is understood.
    """
    try:
        return _look(Path(path))
    except OSError as error:
        reason = one_line(error.strerror or error)
        raise DataError(f"{one_line(path)}: cannot be read ({reason}); check the path") from error


def _look(path: Path) -> Source:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"{one_line(path)}: no such file or folder; check the path") from error
    if splits := pascal_splits(path):
        return Source("voc", path, tuple(splits))
    if files := coco_files(path):
        return Source("coco", path, tuple(files))
    # A YAML is said on purpose; XML files may lie beside pictures by chance.
    if find_yaml(path) is None and (splits := flat_splits(path)):
        return Source("voc", path, tuple(splits))
    places, missing = yolo_splits(path)
    if places or find_yaml(path):
        return Source("yolo", path, tuple(places), missing)
    raise DataError(f"{one_line(path)}: no data set is recognised in it; understood: {_LAYOUTS}")


def read_source(source: Source, wanted: Sequence[str] = (), names: Sequence[str] = ()) -> RawSet:
    """The splits of a set, or those `wanted`, as they are written. `names` are the classes of a
    YOLO set that says none itself."""
    if source.layout == "voc":
        return read_voc(source.path, wanted)
    if source.layout == "coco":
        return read_coco(source.path, wanted)
    return read_yolo(source.path, wanted, names)
