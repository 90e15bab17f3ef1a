"""The sections of the page, in their order: words, figures, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vovnet.detect.options import CONF
from vovnet.review.calibration import calibration
from vovnet.review.choosing import Chosen, choose
from vovnet.review.confidence import Best, Curve, by_class, overall
from vovnet.review.confusion import confusion, mix_ups
from vovnet.review.errors import error_kinds
from vovnet.review.figures import (
    Chart,
    calibration_chart,
    confusion_chart,
    error_chart,
    f1_chart,
    precision_recall,
    size_chart,
    training_charts,
)
from vovnet.review.matches import Judged
from vovnet.review.pictures import Pair, data_uri, pair
from vovnet.review.results import Rows
from vovnet.review.sizes import by_size


@dataclass(frozen=True)
class Table:
    """Heads and lines of text; the first cell of a line names it."""

    caption: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    key: str
    heading: str
    intro: str = ""
    charts: tuple[Chart, ...] = ()
    table: Table | None = None
    pairs: tuple[Pair, ...] = ()
    picture: str | None = None  # a data URI


def training_section(rows: Rows) -> Section | None:
    """The curves of a run; None before its first epoch has ended."""
    charts = tuple(training_charts(rows))
    return Section("training", "Training", charts=charts) if charts else None


def batch_section(jpeg: bytes) -> Section:
    """The first batch of a run."""
    said = (
        "The first pictures that the network was trained on, augmented as the recipe says, with "
        "the boxes that it was to learn. A box that does not fit here is learned as it is."
    )
    return Section("batch", "What the network sees", said, picture=data_uri(jpeg))


def best_confidence(judged: Judged) -> Best:
    """The confidence that is best for F1, of all detections together."""
    return overall(judged.matches, judged.least).best


def accuracy_sections(judged: Judged) -> list[Section]:
    """What a detector finds and where it goes wrong, at the confidence that is best for F1."""
    together = overall(judged.matches, judged.least)
    curves = by_class(judged.matches, judged.names, judged.least)
    best = together.best
    conf = CONF if best.conf is None else best.conf
    if not together.count:
        nothing = "No object is labelled in these images: there is nothing to measure accuracy by."
        return [Section("accuracy", "Accuracy", nothing), *_looks(judged, conf)]
    assert judged.evaluation.eval is not None
    precision = np.asarray(judged.evaluation.eval["precision"])[0, :, :, 0, 2]
    said = "No detection is right at any confidence. What follows is shown at the usual one, 0.25."
    if best.conf is not None:
        said = (
            f"At the confidence {conf:.2f}, F1 is best: {best.precision:.1%} of what is shown is "
            f"right, and {best.recall:.1%} of the objects are found."
        )
    charts = (precision_recall(precision, curves), f1_chart(together, curves, best))
    return [
        Section("accuracy", "Accuracy", said, charts, _class_table(judged, curves)),
        _mistakes(judged, conf),
        *_looks(judged, conf),
    ]


def _class_table(judged: Judged, curves: Sequence[Curve]) -> Table:
    """The classes with the lowest AP first."""
    lines = []
    order = sorted(
        range(len(curves)), key=lambda i: judged.coco.per_class[curves[i].name]["map_50_95"] or 0
    )
    for curve in (curves[i] for i in order):
        accuracy, best = judged.coco.per_class[curve.name], curve.best
        shares = (best.f1, best.precision, best.recall)
        lines.append((
            curve.name,
            str(curve.count),
            *(_number(accuracy[key]) for key in ("map_50_95", "map_50")),
            "–" if best.conf is None else f"{best.conf:.2f}",
            *("–" if best.conf is None else f"{share:.3f}" for share in shares),
        ))  # fmt: skip
    head = ("class", "objects", "AP .50:.95", "AP .50", "best confidence", "F1", "precision",
            "recall")  # fmt: skip
    return Table("The last four: at the confidence that is best for the class.", head, tuple(lines))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mistakes(judged: Judged, conf: float) -> Section:
    shown = judged.above(conf)
    pairs = mix_ups(shown.confusion_matrix(iou_thr=0.5)["matrix"].astype(np.int64), judged.names)
    told = ", ".join(f"{a} for {b} ({count})" for a, b, count in pairs)
    coco = judged.coco
    by_area = (("small", coco.map_small), ("medium", coco.map_medium), ("large", coco.map_large))
    areas = ", ".join(f"{name} {value:.3f}" for name, value in by_area if value is not None)
    charts = (
        confusion_chart(confusion(shown, judged.names), conf),
        error_chart(error_kinds(judged.above(0), shown), conf),
        size_chart(by_size(judged.matches, conf), conf, f"COCO's AP by size: {areas}."),
        calibration_chart(calibration(judged.evaluation)),
    )
    said = f"Taken for another class most: {told}." if told else ""
    return Section("mistakes", "Mistakes", said, charts)


def _looks(judged: Judged, conf: float) -> list[Section]:
    chosen = choose(judged, conf)
    sections = [
        Section("worst", "Most mistakes", "The pictures with most false and missed.",
                pairs=_pairs(judged, chosen.worst, conf)),
        Section("doubtful", "Most doubt", f"Many scores near the confidence {conf:.2f}: whether "
                "they are shown is nearly chance.", pairs=_pairs(judged, chosen.doubtful, conf)),
        Section("labels", "Labels worth a second look", "Where the detector is sure and the labels "
                "say otherwise, one of the two is wrong.",
                pairs=_pairs(judged, chosen.labels, conf)),
    ]  # fmt: skip
    return [section for section in sections if section.pairs]


def _pairs(judged: Judged, chosen: Sequence[Chosen], conf: float) -> tuple[Pair, ...]:
    return tuple(filter(None, (pair(judged, one, conf) for one in chosen)))
