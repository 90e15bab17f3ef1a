"""Data sets brought to the same class names, and several put together as one."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vovnet.data.finding import Finding
from vovnet.data.record import Dataset, Record
from vovnet.errors import DataError
from vovnet.text import one_line

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


def with_names(dataset: Dataset, names: Sequence[str], *, drop_unknown: bool = False) -> Dataset:
    """`dataset` with its labels indexing `names`: by name, or by COCO's word for PASCAL's.

    Objects of other classes are left out with `drop_unknown` (a finding for each class), and are a
    `DataError` without. Classes that the set does not have are a finding too: what it shows of them
    counts as background. Category ids stay if all of `names` have one.
    """
    names = tuple(names)
    if names == dataset.names:
        return dataset
    labels = {name: label for label, name in enumerate(names)}
    to = np.array(
        [labels.get(name, labels.get(SYNONYMS.get(name, ""), -1)) for name in dataset.names],
        dtype=np.int64,
    )
    unknown = {name: count for name, count in _counts(dataset, to).items() if count}
    if unknown and not drop_unknown:
        raise DataError(_unknown(dataset, unknown, names))
    findings = [
        Finding("VD321", f"{one_line(name)}, {count} boxes", dataset.split, action="left out")
        for name, count in unknown.items()
    ]
    if missing := [one_line(name) for label, name in enumerate(names) if label not in to]:
        what = f"{one_line(dataset.root)} has no {', '.join(missing)}"
        findings.append(Finding("VD322", what, dataset.split, action="background"))
    return replace(
        dataset,
        names=names,
        records=tuple(_relabel(record, to) for record in dataset.records),
        category_ids=_category_ids(dataset, to, len(names)),
        findings=(*dataset.findings, *findings),
    )


def _counts(dataset: Dataset, to: np.ndarray) -> dict[str, int]:
    """How many boxes each class has that is not among the wanted ones."""
    counts = np.zeros(len(to), np.int64)
    for record in dataset.records:
        counts += np.bincount(record.labels, minlength=len(to))
    rows = zip(dataset.names, to, counts, strict=True)
    return {name: int(count) for name, label, count in rows if label < 0}


def _unknown(dataset: Dataset, unknown: Mapping[str, int], names: Sequence[str]) -> str:
    listed = ", ".join(f"{name} ({count} boxes)" for name, count in list(unknown.items())[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    near = difflib.get_close_matches(next(iter(unknown)), names, n=1, cutoff=0.5)
    hint = f" (it knows {near[0]})" if near else ""
    return one_line(
        f"{dataset.root} split {dataset.split}: the model does not know {listed}{more}{hint}; give "
        "--weights for these classes, or --drop-unknown to leave such boxes out"
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
        scores=None if record.scores is None else record.scores[keep],
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
        findings=tuple(finding for dataset in datasets for finding in dataset.findings),
    )
