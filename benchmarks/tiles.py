"""Small objects in large pictures, with and without tiles: photographs of blood pasted together.

    python benchmarks/tiles.py [WEIGHTS] [--data ../shared/data/bccd@test] [--tile 640 480]
        [--overlap 0.2] [--class Platelets] [--out benchmarks/results/tiles.csv]

Sixteen pictures make one, 4×4. What is found in it is told apart again by the cell in which its
centre lies, so that all rows have the same truth, and each class the 100 boxes a picture that COCO
counts: "alone" sees one picture after the other, "whole" the large ones, "tiles" as `predict
--tile` does. Recall is of the class named, at predict's confidence (0.25) and IoU 0.5.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from common import machine, write_rows
from vovnet.boxes.iou import pairwise_iou
from vovnet.data.open import open_dataset, parse_source
from vovnet.data.record import Record
from vovnet.detect.options import CONF
from vovnet.detect.tiles import Tiling, detect_tiled
from vovnet.detections import Detections
from vovnet.evaluate.coco import coco_ap
from vovnet.evaluate.run import EVAL_CONF, EVAL_IOU
from vovnet.images import load_image
from vovnet.models.weights import load_detector

SIDE = 4  # pictures beside and below each other
MOST = 100 * SIDE * SIDE
Look = Callable[[Image.Image], Detections]


def mosaic(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size, pasted together row by row."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (SIDE * width, SIDE * height))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % SIDE * width, i // SIDE * height))
    return whole


def cells(found: Detections, size: tuple[int, int]) -> Iterator[Detections]:
    """What is found in each of a mosaic's pictures, in its pixels."""
    width, height = size
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    cell = middle[:, 1] // height * SIDE + middle[:, 0] // width
    for i in range(SIDE * SIDE):
        one = found[cell == i]
        corner = [i % SIDE * width, i // SIDE * height]
        yield replace(one, boxes=one.boxes - corner * 2, image_size=(height, width))


def in_mosaics(look: Look, records: Sequence[Record]) -> list[Detections]:
    """What `look` finds in the pictures of records, pasted together."""
    found: list[Detections] = []
    for start in range(0, len(records), SIDE * SIDE):
        pictures = [load_image(record.path) for record in records[start : start + SIDE * SIDE]]
        found += cells(look(mosaic(pictures)), pictures[0].size)
    return found


def recall(found: Sequence[Detections], records: Sequence[Record], label: int) -> float:
    """The share of a class's objects that a box above the confidence agrees with, each its own."""
    hits = total = 0
    for one, record in zip(found, records, strict=True):
        truth = record.boxes[record.labels == label]
        boxes = one.boxes[(one.labels == label) & (one.scores > CONF)]
        alike = pairwise_iou(torch.from_numpy(boxes), torch.from_numpy(truth)) >= 0.5
        free = torch.ones(len(truth), dtype=torch.bool)
        for row in alike:  # best scores first
            if (row & free).any():
                free[int((row & free).nonzero()[0])] = False
        hits, total = hits + int((~free).sum()), total + len(truth)
    return hits / total


def main() -> None:
    """Measure, and write a row a way to look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", default="dsod300-vovnet27_slim.bccd")
    parser.add_argument("--data", default="../shared/data/bccd@test")
    parser.add_argument("--tile", nargs="+", type=int, default=[640, 480])
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--class", dest="name", default="Platelets")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    detector = load_detector(given.weights, fuse=True)
    path, split = parse_source(given.data)
    records = open_dataset(path, split, detector.names, purpose="val").records
    records = records[: len(records) // SIDE**2 * SIDE**2]
    how = {"conf": EVAL_CONF, "iou": EVAL_IOU, "max_det": MOST}

    def tiled(side: int) -> Look:
        tiling = Tiling(side, given.overlap)
        return lambda image: detect_tiled(detector, image, tiling, **how)

    ways = {"alone": lambda: [detector.detect(load_image(r.path), **how) for r in records]}
    ways["whole"] = lambda: in_mosaics(lambda image: detector.detect(image, **how), records)
    for side in given.tile:
        ways[f"tiles of {side}"] = lambda side=side: in_mosaics(tiled(side), records)
    rows = []
    for way, look in ways.items():
        found = look()
        figures = coco_ap(found, records, detector.names)
        rows.append(
            {
                "look": way,
                "weights": given.weights,
                "data": f"{path.name}@{split}",
                "pictures": len(records),
                f"recall_{given.name}": round(
                    recall(found, records, detector.names.index(given.name)), 4
                ),
                f"map_50_{given.name}": round(figures.per_class[given.name]["map_50"] or 0, 4),
                "map_50": round(figures.map_50 or 0, 4),
                "map_50_95": round(figures.map_50_95 or 0, 4),
                **machine(),
            }
        )
        print(rows[-1], flush=True)
    write_rows(given.out, rows)


if __name__ == "__main__":
    main()
