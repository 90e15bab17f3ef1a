"""What a teacher finds in the pictures to train on: soft objects beside their labels."""

import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vovnet.boxes.iou import pairwise_iou
from vovnet.data.cache import picture_hashes
from vovnet.data.names import SYNONYMS
from vovnet.data.record import Dataset, Record
from vovnet.detect.run import AnyDetector
from vovnet.detect.sidecar import SIDECAR, file_hash
from vovnet.distributed import (
    broadcast_object,
    gather_objects,
    is_main,
    processes_here,
    rank,
    world_size,
)
from vovnet.errors import VovnetError
from vovnet.evaluate.run import detect_records
from vovnet.files import cache_folder, write_atomically
from vovnet.limits import usable_cores
from vovnet.load import load_detector
from vovnet.models.detector import Detector
from vovnet.shipped import weights_path
from vovnet.text import one_line

# Overlaps above which a find is a label of its class, or what a label of another class denies.
_SAME, _OTHER = 0.3, 0.5
_BATCH = 8  # pictures that a teacher looks at at a time


class Finds(NamedTuple):
    """What a teacher found in one picture, in its pixels: boxes K×4, scores K, labels K."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Lesson(NamedTuple):
    """A teacher's finds in every picture, its class names, and the metadata that tell of it."""

    finds: list[Finds]
    names: tuple[str, ...]
    facts: dict[str, Any]


def taught(teacher: str, conf: float, dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The data set with what a teacher finds in its pictures and no label says, and what is to be
    told of it. Classes are matched by name.

    The teacher looks at every picture once; what it found is kept in the user's cache folder, by
    its files and the pictures. Raises `VovnetError` if it knows none of the classes, and what
    `load_detector` raises.
    """
    lesson = _lesson(teacher, conf, dataset)
    labels = {name: label for label, name in enumerate(dataset.names)}
    to = np.array([labels.get(n, labels.get(SYNONYMS.get(n, ""), -1)) for n in lesson.names])
    if (to < 0).all():
        raise VovnetError(
            f"--teacher {teacher}: knows none of the classes {one_line(', '.join(dataset.names))}; "
            "give one that does, or rename its classes in its description"
        )
    pairs = zip(dataset.records, lesson.finds, strict=True)
    records = tuple(with_finds(record, _renamed(finds, to)) for record, finds in pairs)
    return replace(dataset, records=records, teacher=lesson.facts), _told(
        teacher, to, dataset, records
    )


def with_finds(record: Record, finds: Finds) -> Record:
    """The record with those finds beside its objects that none of these is or denies."""
    new = _new(record, finds)
    count = int(new.sum())
    none = np.zeros(count, bool)
    boxes = finds.boxes[new].astype(np.float32)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    ones = np.ones(len(record.labels), np.float32)
    return replace(
        record,
        boxes=np.concatenate([record.boxes, boxes]),
        labels=np.concatenate([record.labels, finds.labels[new]]),
        difficult=np.concatenate([record.difficult, none]),
        crowd=np.concatenate([record.crowd, none]),
        areas=None if record.areas is None else np.concatenate([record.areas, areas]),
        scores=np.concatenate([ones, finds.scores[new].clip(0, 1).astype(np.float32)]),
    )


def check_takes_scores(detector: Detector) -> None:
    """Raise `VovnetError` for a detector that learns from labels alone."""
    if not getattr(detector.criterion, "takes_scores", False):
        raise VovnetError(
            f"--teacher: {detector.name} learns from labels alone; train a VoVDet or one of the "
            "SSD families"
        )


def _new(record: Record, finds: Finds) -> np.ndarray:
    """Which finds (K bool) the record's objects say nothing of."""
    sound: np.ndarray = np.all(finds.boxes[:, 2:] > finds.boxes[:, :2], axis=1)
    if not len(record.boxes) or not len(finds.boxes):
        return sound
    mine, theirs = torch.from_numpy(record.boxes), torch.from_numpy(finds.boxes).float()
    overlap = pairwise_iou(theirs, mine).numpy()
    same = finds.labels[:, None] == record.labels
    said = (overlap >= np.where(same, _SAME, _OTHER)) | (_inside(finds.boxes, record) > _OTHER)
    return np.logical_and(sound, ~said.any(1))


def _inside(boxes: np.ndarray, record: Record) -> np.ndarray:
    """How much of each box lies in each crowd, whose frame tells of no single object: K×N."""
    first = np.maximum(boxes[:, None, :2], record.boxes[:, :2])
    last = np.minimum(boxes[:, None, 2:], record.boxes[:, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clip(min=1e-9)
    return (last - first).clip(min=0).prod(2) / area[:, None] * record.crowd


def _renamed(finds: Finds, to: np.ndarray) -> Finds:
    """With the data set's labels, without the classes that it does not have."""
    labels = to[finds.labels]
    known = labels >= 0
    return Finds(finds.boxes[known], finds.scores[known], labels[known])


def _told(teacher: str, to: np.ndarray, dataset: Dataset, records: Sequence[Record]) -> list[str]:
    soft = [
        len(new.boxes) - len(old.boxes) for new, old in zip(records, dataset.records, strict=True)
    ]
    lines = [
        f"{teacher}: {sum(soft)} objects beside the labels, in {np.count_nonzero(soft)} of "
        f"{len(records)} images"
    ]
    if missing := [one_line(name) for label, name in enumerate(dataset.names) if label not in to]:
        lines.append(f"{teacher}: does not know {', '.join(missing)}: of these, only labels tell")
    return lines


def _lesson(teacher: str, conf: float, dataset: Dataset) -> Lesson:
    threads = max(1, usable_cores() // processes_here())
    detector = load_detector(teacher, fuse=True, threads=threads)  # says what is wrong with a name
    hashes = _hashes(teacher)
    facts = {
        "file": Path(teacher).name,
        "sha256": next(iter(hashes.values())),
        "licence": detector.metadata.get("licence"),
    }
    purpose = repr(("finds 1", conf, sorted(hashes.items()), detector.names))
    which, state = picture_hashes(dataset.records, purpose)
    path = cache_folder() / "finds" / which / f"{state}.npz"
    finds = broadcast_object(_read(path, len(dataset)) if is_main() else None)
    if finds is None:
        finds = _found(detector, dataset.records, conf)
        if is_main():
            _write(path, finds)
    return Lesson(finds, detector.names, facts)


def _found(detector: AnyDetector, records: Sequence[Record], conf: float) -> list[Finds]:
    """What is found in every picture, in all processes. They share the pictures, in the batches
    that one alone would make: while it looked at all, the others' patience would run out."""
    mine = [i for i in range(len(records)) if i // _BATCH % world_size() == rank()]
    stream = detect_records(detector, [records[i] for i in mine], batch=_BATCH, conf=conf)
    own = [Finds(one.boxes, one.scores, one.labels) for one in stream]
    shares = gather_objects(list(zip(mine, own, strict=True)))
    every = sorted(itertools.chain(*shares), key=itemgetter(0))
    return broadcast_object([finds for _, finds in every])


def _hashes(teacher: str) -> dict[str, str]:
    """SHA-256 of all the files that a teacher is made of, the one to open first."""
    path = Path(teacher)
    if (path / SIDECAR).is_file():
        files = [path / SIDECAR]  # it holds the others' hashes
    else:
        path = weights_path(teacher)
        files = [path, *(path.with_suffix(end) for end in (".json", ".bin"))]
    return {file.name: file_hash(file) for file in files if file is path or file.is_file()}


def _read(path: Path, count: int) -> list[Finds] | None:
    """What is kept of so many pictures; None if nothing is, or it was damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            ends = np.cumsum(kept["counts"])[:-1]
            columns = [np.split(kept[name], ends) for name in Finds._fields]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    return [Finds(*row) for row in zip(*columns, strict=True)] if len(columns[0]) == count else None


def _write(path: Path, finds: Sequence[Finds]) -> None:
    data = io.BytesIO()
    boxes, scores, labels = (np.concatenate(column) for column in zip(*finds, strict=True))
    counts = [len(one.scores) for one in finds]
    np.savez(data, boxes=boxes, scores=scores, labels=labels, counts=counts)
    write_atomically(path, data.getvalue())
