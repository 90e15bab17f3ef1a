"""Detections and records whose figures can be counted by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from vovnet.data.record import Dataset, Record, make_record
from vovnet.detections import Detections

SIDE = 100
Row = tuple[tuple[float, float, float, float], int]
Scored = tuple[tuple[float, float, float, float], int, float]


def box(x: float, y: float, side: float = 20) -> tuple[float, float, float, float]:
    return x, y, x + side, y + side


def record(number: int, rows: Sequence[Row], root: Path = Path("nowhere"), **more) -> Record:
    return make_record(root / f"{number}.png", number, (SIDE, SIDE), rows, **more)


def found(rows: Sequence[Scored], names: Sequence[str]) -> Detections:
    boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores), np.array(labels), tuple(names)
    )


@pytest.fixture
def pictured(tmp_path) -> Dataset:
    """Two pictures on disk: of the first an "a" is labelled twice and a "b" once."""
    records = (
        record(1, [(box(0, 0), 0), (box(40, 0), 0), (box(0, 60), 1)], tmp_path),
        record(2, [(box(50, 50, 40), 1)], tmp_path),
    )
    for one in records:
        Image.new("RGB", (SIDE, SIDE), (90, 120, 150)).save(one.path)
    return Dataset(tmp_path, "val", "voc", ("a", "b"), records)


@st.composite
def scenes(draw, classes: int | None = None):
    """(detections, records, names): some images, from none to many objects, on a coarse grid, so
    that hits, duplicates, mix-ups and crowds come about."""
    classes = classes or draw(st.sampled_from([1, 2, 3, 80]))
    names = tuple(f"class {i}" for i in range(classes))
    corners = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda c: box(25 * c[0], 25 * c[1])
    )
    labels = st.integers(0, min(classes, 3) - 1)
    scores = st.integers(1, 99).map(lambda n: n / 100 + 0.005)
    records, every = [], []
    for number in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(corners, labels), max_size=5, unique_by=lambda row: row[0]))
        crowd = [draw(st.integers(0, 5)) == 0 for _ in rows]
        records.append(record(number + 1, rows, crowd=crowd))
        every.append(found(draw(st.lists(st.tuples(corners, labels, scores), max_size=6)), names))
    return every, records, names
