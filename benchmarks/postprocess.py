"""What decoding an image costs after the network, against torchvision's own post-processing.

    python benchmarks/postprocess.py [--rounds 40] [--threads 1] [--out FILE.csv]

SSD300 (8,732 priors, 91 classes) against `torchvision.models.detection.ssd.SSD`'s post-processing,
RefineDet512 (16,320 anchors, 81 classes) against the same, given the refined anchors that pass the
filter. Outputs are made up twice: as an untrained network gives them, every class about as likely,
and as a trained one does, nearly all background and a few objects. "nms" is the suppression alone,
on the very same candidates: the best 1,000 of RefineDet512's (box, class) pairs.

Contestants take turns; a time is processor time per image, so that other jobs on the machine do
not count. Prints CSV: medians over the rounds, with the least and the greatest.

The two differ in what they keep: torchvision takes the best 400 of every class, clips boxes to the
image and keeps 200; ours takes the best 1,000 of all classes, does not clip, and keeps 300 (500).
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, box_convert

from vovnet.boxes.anchors import PriorLevel, prior_boxes
from vovnet.boxes.coding import encode_offsets
from vovnet.boxes.iou import pairwise_iou
from vovnet.boxes.nms import best_pairs, suppress
from vovnet.detect.options import Options
from vovnet.lab import environment
from vovnet.models.detector import Found, PriorDecoder, RefineDecoder
from vovnet.models.dsod import PriorOutput
from vovnet.models.refinedet import RefineDetOutput, anchor_levels

IOU = 0.45
VARIANCES = (0.1, 0.2)
CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
# SSD300 on COCO: cells, step and sizes of each map (arXiv 1512.02325 section 2.2).
SSD300 = tuple(
    PriorLevel(cells, step, size, bigger, ratios)
    for cells, step, size, bigger, ratios in (
        (38, 8.0, 21.0, 45.0, (2.0,)),
        (19, 16.0, 45.0, 99.0, (2.0, 3.0)),
        (10, 32.0, 99.0, 153.0, (2.0, 3.0)),
        (5, 64.0, 153.0, 207.0, (2.0, 3.0)),
        (3, 100.0, 207.0, 261.0, (2.0,)),
        (1, 300.0, 261.0, 315.0, (2.0,)),
    )
)


@dataclass(frozen=True)
class Contest:
    """Two ways to do one thing; each returns how many boxes it found."""

    name: str
    ours: Callable[[], int]
    torchvision: Callable[[], int]


def head_outputs(
    priors: Tensor, size: int, columns: int, trained: bool, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits A×columns (0 is background) and offsets A×4 for one made-up image."""
    logits = torch.randn(len(priors), columns, generator=rng)
    offsets = torch.randn(len(priors), 4, generator=rng) / 3
    if not trained:
        return logits, offsets
    logits[:, 0] += 9.0
    corner = torch.rand(12, 2, generator=rng) * size * 0.7
    objects = torch.cat(
        [corner, corner + size * (0.05 + 0.25 * torch.rand(12, 2, generator=rng))], 1
    )
    overlap, owner = pairwise_iou(objects, box_convert(priors, "cxcywh", "xyxy")).max(0)
    near = overlap > 0.4
    labels = torch.randint(1, columns, (12,), generator=rng)[owner[near]]
    sure = 8 + 6 * overlap[near] + torch.randn(len(labels), generator=rng)
    logits[near, labels] = sure
    offsets[near] = encode_offsets(objects[owner[near]], priors[near], VARIANCES)
    offsets[near] += torch.randn(len(labels), 4, generator=rng) / 3
    return logits, offsets


def theirs(logits: Tensor, offsets: Tensor, anchors: Tensor, size: int, conf: float) -> int:
    """torchvision's SSD post-processing of one image; `anchors` A×4 xyxy."""
    settings = SimpleNamespace(
        box_coder=CODER,
        score_thresh=conf,
        topk_candidates=400,
        nms_thresh=IOU,
        detections_per_img=200,
    )
    outputs = {"bbox_regression": offsets[None], "cls_logits": logits[None]}
    (found,) = SSD.postprocess_detections(settings, outputs, [anchors], [(size, size)])
    return len(found["boxes"])


def found(results: list[Found]) -> int:
    """How many boxes the one image of a batch has."""
    return len(results[0].boxes)


def ssd300(trained: bool, conf: float, rng: torch.Generator) -> Iterator[Contest]:
    """SSD300 with COCO's 91 columns."""
    priors = prior_boxes(SSD300)
    corners = box_convert(priors, "cxcywh", "xyxy")
    logits, offsets = head_outputs(priors, 300, 91, trained, rng)
    outputs, decode = PriorOutput(logits[None], offsets[None]), PriorDecoder(priors)
    yield Contest(
        "ssd300",
        lambda: found(decode(outputs, (300, 300), Options(conf, IOU))),
        lambda: theirs(logits, offsets, corners, 300, conf),
    )


def refinedet512(trained: bool, conf: float, rng: torch.Generator) -> Iterator[Contest]:
    """RefineDet512 with 81 columns: all of it, and its suppression alone."""
    anchors = prior_boxes(anchor_levels(512))
    corners = box_convert(anchors, "cxcywh", "xyxy")
    arm_logits, arm_offsets = head_outputs(anchors, 512, 2, trained, rng)
    logits, offsets = head_outputs(anchors, 512, 81, trained, rng)
    if trained:
        arm_logits[:, 1] += 3  # about a sixth of the anchors pass the filter
    outputs = RefineDetOutput(*(x[None] for x in (arm_logits, arm_offsets, logits, offsets)))
    decode = RefineDecoder(anchors)

    def from_parts() -> int:
        passing = arm_logits.softmax(1)[:, 1] >= decode.min_objectness
        refined = CODER.decode_single(arm_offsets[passing], corners[passing])
        return theirs(logits[passing], offsets[passing], refined, 512, conf)

    yield Contest(
        "refinedet512", lambda: found(decode(outputs, (512, 512), Options(conf, IOU))), from_parts
    )
    scores = logits.softmax(1)[:, 1:]
    boxes = CODER.decode_single(offsets, corners).clamp(0, 512)
    pairs = best_pairs(torch.arange(len(boxes)), scores, conf)
    candidates = boxes[pairs.rows]

    yield Contest(
        f"nms of {len(candidates)}",
        lambda: len(suppress(candidates, pairs, Options(iou=IOU), most=1000)[0]),
        lambda: len(batched_nms(candidates, pairs.scores, pairs.labels, IOU)),
    )


def compare(contest: Contest, rounds: int) -> dict:
    """Milliseconds of processor time of both, taking turns, and their ratio round by round."""
    contestants = {"ours": contest.ours, "torchvision": contest.torchvision}
    times: dict[str, list[float]] = {key: [] for key in contestants}
    row: dict = {f"{key}_boxes": work() for key, work in contestants.items()}
    for turn in range(rounds):
        order = list(contestants.items())[:: 1 if turn % 2 else -1]
        for key, work in order:
            start = time.process_time()
            work()
            times[key].append((time.process_time() - start) * 1e3)
    ratios = [a / b for a, b in zip(times["ours"], times["torchvision"], strict=True)]
    for key, values in {**{f"{k}_ms": v for k, v in times.items()}, "ratio": ratios}.items():
        row[key] = round(statistics.median(values), 3)
        row[f"{key}_min"], row[f"{key}_max"] = round(min(values), 3), round(max(values), 3)
    return row


def main() -> None:
    """Measure every contest and print CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a CSV file to write instead of printing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine = environment()
    where = {
        "threads": given.threads,
        "rounds": given.rounds,
        "cpu": f"{machine['cpu']['model']}, {machine['cpu']['capability']}",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": str(date.today()),
    }
    rows = []
    with torch.inference_mode():
        for case in (ssd300, refinedet512):
            for trained in (False, True):
                for conf in (0.01, 0.25):
                    for contest in case(trained, conf, torch.Generator().manual_seed(0)):
                        told = "trained" if trained else "untrained"
                        what = {"what": contest.name, "outputs": told, "conf": conf}
                        rows.append(what | compare(contest, given.rounds) | where)
    with given.out.open("w", newline="") if given.out else sys.stdout as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
