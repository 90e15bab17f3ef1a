"""What choosing fewer regions costs in accuracy and gives in time: a two-stage detector with the
published number of regions and with what is chosen in use, image by image in turns.

    python benchmarks/regions.py [WEIGHTS] [--data ../shared/data/nuclei@val] [--imgsz 256]
        [--most N --iou F --min-objectness F] [--threads 1] [--out FILE.csv]

Times are processor time per image at the confidence of `predict` (0.25), medians over the images,
so that other jobs on the machine do not count; "first_ratio" divides by the first stage's alone.
Accuracy is that of `val`, which keeps every score above 0.001.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vovnet.data.images import open_image

from common import machine, write_rows
from vovnet.data.open import open_dataset, parse_source
from vovnet.detect.options import Options
from vovnet.evaluate.run import evaluate
from vovnet.models import rcnn
from vovnet.models.detector import Detector
from vovnet.models.rcnn import Proposing
from vovnet.models.weights import load_detector

PUBLISHED = Proposing(1000, 1000, 0.7, 0.01)
FIGURES = ("map_50", "map_50_95", "mask_map_50", "mask_map_50_95")
CONF, IOU = 0.25, 0.6


def inputs(detector: Detector, records: Any) -> Iterator[Tensor]:
    """Every record's picture as the network takes it, one by one."""
    for record in records:
        image, size = open_image(record.path, shrink_to=max(detector.input_spec.size))
        pixels, _ = detector.input_spec.prepare(image, size)
        yield detector.normalize(torch.from_numpy(pixels[None]))


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of one call, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


@torch.inference_mode()
def timed(detector: Detector, records: Any, rules: dict[str, Proposing]) -> list[dict]:
    """A row a rule, measured in turns on the same outputs of the first stage."""
    network, size = detector.network, detector.input_spec.size
    firsts: list[float] = []
    wholes: dict[str, list[tuple[float, int, int]]] = {name: [] for name in rules}
    for images in inputs(detector, records):
        first, outputs = seconds(lambda images=images: network(images))
        firsts.append(first)
        for name, rule in rules.items():
            rcnn.proposing_in_use = lambda _, rule=rule: rule
            second, found = seconds(lambda o=outputs: detector.decode(o, size, Options(CONF, IOU)))
            regions = len(network._propose(outputs, size, rule)[0])
            wholes[name].append((first + second, regions, len(found[0].labels)))
    rows = []
    for name, values in wholes.items():
        whole, regions, found = (statistics.median(column) for column in zip(*values, strict=True))
        ratio = statistics.median(v[0] / f for v, f in zip(values, firsts, strict=True))
        row = {"rule": name, "ms": round(1e3 * whole), "first_ratio": round(ratio, 2)}
        rows.append(row | {"regions": regions, "detections": found})
    return rows


def main() -> None:
    """Measure both, and write a row of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", default="maskrcnn-vovnet19_slim.nuclei")
    parser.add_argument("--data", default="../shared/data/nuclei@val")
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--most", type=int)
    parser.add_argument("--iou", type=float)
    parser.add_argument("--min-objectness", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-accuracy", action="store_true", help="times only")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    detector = load_detector(given.weights, imgsz=given.imgsz, fuse=True)
    path, split = parse_source(given.data)
    dataset = open_dataset(path, split, detector.names, purpose="val")
    chosen = rcnn.proposing_in_use(detector.input_spec.size)._asdict()
    chosen |= {key: vars(given)[key] for key in chosen if vars(given).get(key) is not None}
    rules = {"published": PUBLISHED, "in use": Proposing(**chosen)}
    rows = timed(detector, dataset.records, rules)
    about = {"weights": given.weights, "data": f"{path.name}@{split}"}
    for row, rule in zip(rows, rules.values(), strict=True):
        row |= about | rule._asdict() | {"imgsz": max(detector.input_spec.size)}
        if not given.no_accuracy:
            rcnn.proposing_in_use = lambda _, rule=rule: rule
            figures = evaluate(detector, dataset)
            row |= {key: round(figures[key], 4) for key in FIGURES if key in figures}
        row |= machine()
    write_rows(given.out, rows)


if __name__ == "__main__":
    main()
