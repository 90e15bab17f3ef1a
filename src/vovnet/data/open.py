"""Open a data set by looking at it: VOC, COCO or YOLO, one split, the class names you want."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from vovnet.data.dataset import build_dataset
from vovnet.data.formats import Source, find_source, read_source
from vovnet.data.names import with_names
from vovnet.data.record import Dataset
from vovnet.errors import DataError
from vovnet.text import one_line

_TRAIN = ("train", "trainval", "all")
_VAL = ("val", "test", "all")
_VALIDATION = ("val", "valid", "validation")


def parse_source(text: str) -> tuple[Path, str | None]:
    """`PATH` or `PATH@SPLIT` as (path, split); an existing path may hold an @ of its own."""
    path, at, split = text.rpartition("@")
    if not at or not path or "/" in split or "\\" in split or os.path.exists(text):
        return Path(text), None
    if not split:
        raise DataError(f"{one_line(text)}: no split behind the @; write PATH@train, or PATH")
    return Path(path), split


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
    finds "valid". With `names` the labels index them, as `with_names` says. What is wrong with the
    set is told or refused as `build_dataset` says, which knows `check_sizes` too.
    Raises `DataError` for what is missing, not understood, empty, or unknown in it.
    """
    source = find_source(path)
    found = choose_split(source, split, purpose)
    raw = read_source(source, [found], names or ())
    dataset = build_dataset(raw, found, check_sizes=check_sizes)
    return dataset if names is None else with_names(dataset, names, drop_unknown=drop_unknown)


def choose_split(
    source: Source, split: str | None, purpose: Literal["train", "val"] = "train"
) -> str:
    """The split of a set that is asked for, or that `default_split` takes.

    Raises `DataError` for one that there is not, or that data.yaml names and that is not there.
    """
    asked = split or purpose
    lost = match_split(asked, tuple(source.missing))
    if lost and not match_split(asked, source.splits):
        raise DataError(
            f"{one_line(source.path)}: its YAML names {lost}: {source.missing[lost]}, which is not "
            "there; bring it back, or correct the line"
        )
    found = match_split(split, source.splits) if split else default_split(source.splits, purpose)
    if found is None:
        raise _unknown_split(source.path, asked, source.splits)
    return found


def validation_split(path: str | Path, used: str | None) -> str | None:
    """The split of a set that is there to validate by, when `used` (None: the default) is trained
    on; None if it has none. Raises `DataError` like `choose_split`, which a YAML can make it."""
    source = find_source(path)
    learned = choose_split(source, used)
    if not match_split("val", (*source.splits, *source.missing)):
        return None
    found = choose_split(source, "val")
    return found if found != learned else None


def _unknown_split(source: Path, split: str, known: Iterable[str]) -> DataError:
    known = sorted(known)
    near = difflib.get_close_matches(split, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    listed = ", ".join(known) if known else "none"
    return DataError(one_line(f"{source}: no split {split!r}.{hint} Splits that exist: {listed}."))
