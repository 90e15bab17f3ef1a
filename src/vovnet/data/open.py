"""Open a data set by looking at it: VOC, COCO or YOLO, one split, the class names you want."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vovnet.data._common import one_line, unknown_split
from vovnet.data.coco import coco_files, read_coco
from vovnet.data.record import Dataset, Problem, Record
from vovnet.data.voc import read_voc, voc_splits
from vovnet.data.yolo import find_yaml, read_yolo, yolo_splits
from vovnet.errors import DataError, UnknownNameError

_LAYOUTS = (
    "VOC (Annotations/, ImageSets/Main/, JPEGImages/), COCO (instances_<split>.json and images/) "
    "or YOLO (data.yaml, or images/<split>/ and labels/<split>/)"
)
_TRAIN = ("train", "trainval", "all")
_VAL = ("val", "test", "all")
_VALIDATION = ("val", "valid", "validation")
# PASCAL's words and COCO's for the same things.
_PAIRS = (
    ("aeroplane", "airplane"),
    ("motorbike", "motorcycle"),
    ("sofa", "couch"),
    ("tvmonitor", "tv"),
    ("diningtable", "dining table"),
    ("pottedplant", "potted plant"),
)
SYNONYMS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


@dataclass(frozen=True)
class Source:
    """A data set on disk: its layout, where it is, and the splits it has."""

    kind: Literal["voc", "coco", "yolo"]
    path: Path
    splits: tuple[str, ...]


def parse_source(text: str) -> tuple[Path, str | None]:
    """`PATH` or `PATH@SPLIT` as (path, split); an existing path may hold an @ of its own."""
    path, at, split = text.rpartition("@")
    if not at or not path or "/" in split or "\\" in split or os.path.exists(text):
        return Path(text), None
    if not split:
        raise DataError(f"{one_line(text)}: no split behind the @; write PATH@train, or PATH")
    return Path(path), split


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
    if os.path.isdir(path / "Annotations") and (
        os.path.isdir(path / "ImageSets") or os.path.isdir(path / "JPEGImages")
    ):
        return Source("voc", path, voc_splits(path))
    if files := coco_files(path):
        return Source("coco", path, tuple(files))
    splits = yolo_splits(path)
    if splits or find_yaml(path):
        return Source("yolo", path, splits)
    raise DataError(f"{one_line(path)}: no data set is recognised in it; understood: {_LAYOUTS}")


def default_split(splits: Sequence[str], purpose: Literal["train", "val"] = "train") -> str | None:
    """The split of `splits` to take for `purpose` when none is asked for.

    To train: train, else trainval, else all. To validate: val (or valid), else test, else all.
    Else the only split that there is, else None.
    """
    for name in _TRAIN if purpose == "train" else _VAL:
        if match := match_split(name, splits):
            return match
    return splits[0] if len(splits) == 1 else None


def match_split(asked: str, splits: Sequence[str]) -> str | None:
    """The split meant by `asked`: itself, with a year behind it, or val for valid; or None."""
    for name in (asked, *(_VALIDATION if asked in _VALIDATION else ())):
        if name in splits:
            return name
        years = [s for s in splits if re.fullmatch(rf"{re.escape(name)}_?(19|20)\d\d", s)]
        if len(years) == 1:
            return years[0]
    return None


def open_dataset(
    path: str | Path,
    split: str | None = None,
    names: Sequence[str] | None = None,
    *,
    drop_unknown: bool = False,
    purpose: Literal["train", "val"] = "train",
    check_sizes: bool = True,
) -> Dataset:
    """One split of a data set in VOC, COCO or YOLO layout, which is found by looking.

    Without `split` it is `default_split` for `purpose`. "train" also finds "train2017", and "val"
    finds "valid". With `names` the labels index them, as `with_names` says. `check_sizes=False`
    spares reading the header of every image of a VOC or COCO set, as their readers say.
    Raises `DataError` for what is missing, not understood, empty, or unknown in it.
    """
    source = find_source(path)
    found = match_split(split, source.splits) if split else default_split(source.splits, purpose)
    if found is None:
        raise unknown_split(source.path, split or purpose, source.splits)
    dataset = _read(source, found, names, check_sizes)
    return dataset if names is None else with_names(dataset, names, drop_unknown=drop_unknown)


def _read(source: Source, split: str, names: Sequence[str] | None, check_sizes: bool) -> Dataset:
    if source.kind == "voc":
        return read_voc(source.path, split, check_sizes=check_sizes)
    if source.kind == "coco":
        file = coco_files(source.path)[split]
        return read_coco(file, split=split, check_sizes=check_sizes)
    return read_yolo(source.path, split, names)


def with_names(dataset: Dataset, names: Sequence[str], *, drop_unknown: bool = False) -> Dataset:
    """`dataset` with its labels indexing `names`: by name, or by COCO's word for PASCAL's.

    Objects of other classes are left out with `drop_unknown` (one `Problem` for each class, with
    its count), and are a `DataError` without. Category ids stay if all of `names` have one.
    """
    names = tuple(names)
    if names == dataset.names:
        return dataset
    labels = {name: label for label, name in enumerate(names)}
    to = np.array(
        [labels.get(name, labels.get(SYNONYMS.get(name, ""), -1)) for name in dataset.names],
        dtype=np.int64,
    )
    counts = sum(
        (np.bincount(record.labels, minlength=len(to)) for record in dataset.records),
        start=np.zeros(len(to), dtype=np.int64),
    )
    problems: list[Problem] = []
    for name, label, count in zip(dataset.names, to, counts, strict=True):
        if label >= 0 or count == 0:
            continue
        if not drop_unknown:
            raise DataError(
                f"{one_line(dataset.root)} split {dataset.split}: {count} boxes of an "
                + one_line(UnknownNameError("class", name, names))
            )
        what = f"class {name!r} not among the model's: {count} boxes left out"
        problems.append(Problem(f"{dataset.root.name} {dataset.split}", what, "skipped"))
    return replace(
        dataset,
        names=names,
        records=tuple(_relabel(record, to) for record in dataset.records),
        category_ids=_category_ids(dataset, to, len(names)),
        problems=(*dataset.problems, *problems),
    )


def _relabel(record: Record, to: np.ndarray) -> Record:
    labels = to[record.labels]
    keep = labels >= 0
    masks = record.segmentations
    return replace(
        record,
        boxes=record.boxes[keep],
        labels=labels[keep],
        difficult=record.difficult[keep],
        crowd=record.crowd[keep],
        areas=None if record.areas is None else record.areas[keep],
        segmentations=tuple(mask for mask, kept in zip(masks, keep, strict=False) if kept),
    )


def _category_ids(dataset: Dataset, to: np.ndarray, count: int) -> tuple[int, ...]:
    ids = {int(label): id_ for id_, label in zip(dataset.category_ids, to, strict=False)}
    known = tuple(ids[label] for label in range(count) if label in ids)
    return known if len(known) == count else ()


def merge_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """All images of `datasets` as one, kind "mixed", with image ids 1..n.

    Raises `DataError` if there is none, or if their class names differ (see `with_names`).
    """
    if not datasets:
        raise DataError("no data sets to merge; give at least one")
    first = datasets[0]
    for other in datasets[1:]:
        if other.names != first.names:
            raise DataError(
                f"{one_line(other.root)}: its classes differ from those of {one_line(first.root)}; "
                "read both with the same names"
            )
    records = [record for dataset in datasets for record in dataset.records]
    same_ids = all(dataset.category_ids == first.category_ids for dataset in datasets)
    return Dataset(
        root=first.root,
        split="+".join(dataset.split for dataset in datasets),
        kind="mixed",
        names=first.names,
        records=tuple(replace(r, image_id=i) for i, r in enumerate(records, start=1)),
        category_ids=first.category_ids if same_ids else (),
        problems=tuple(problem for dataset in datasets for problem in dataset.problems),
    )
