"""Accuracy of weights on one data set, at several input sizes.

python benchmarks/val_sizes.py WEIGHTS ... [--imgsz 192 224 256]
    [--data ../shared/data/voc2007@report] [--out benchmarks/results/val_sizes.csv]

Rows that the CSV file has of other weights, sizes and data stay.
"""

import argparse
import csv
from pathlib import Path

from common import machine, write_rows
from vovnet.data.open import open_dataset, parse_source
from vovnet.evaluate.run import evaluate
from vovnet.models.weights import load_detector

FIGURES = ("map_50", "map_50_95", "voc07_ap")


def rows_of(weights: str, given: argparse.Namespace) -> list[dict]:
    """One weights file's rows, a row a size."""
    rows = []
    path, split = parse_source(given.data)
    for size in given.imgsz:
        detector = load_detector(weights, imgsz=size, fuse=True)
        figures = evaluate(detector, open_dataset(path, split, detector.names, purpose="val"))
        row = {"weights": weights, "imgsz": size, "data": f"{path.name}@{split}"}
        rows.append(row | {key: round(figures[key], 4) for key in FIGURES} | machine())
        print(rows[-1])
    return rows


def what(row: dict) -> tuple[str, ...]:
    """What a row is about."""
    return tuple(str(row[key]) for key in ("weights", "imgsz", "data"))


def main() -> None:
    """Measure, and write the rows beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="shipped names or files")
    parser.add_argument("--imgsz", nargs="+", type=int, default=[192, 224, 256])
    parser.add_argument("--data", default="../shared/data/voc2007@report")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = [row for weights in given.weights for row in rows_of(weights, given)]
    if given.out is not None and given.out.exists():
        measured = {what(row) for row in rows}
        with given.out.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if what(row) not in measured] + rows
    write_rows(given.out, rows)


if __name__ == "__main__":
    main()
