"""Which small detector gives the most accuracy for its milliseconds: candidates trained alike.

    python benchmarks/vovdet_candidates.py train [--only CANDIDATE ...] [--seed 0]
        [--data ../shared/data/voc2007] [--beside SOURCE ...] [--holdout 400]
    python benchmarks/vovdet_candidates.py time [--only CANDIDATE ...] [--seconds 1] [--repeats 8]
    python benchmarks/vovdet_candidates.py plot

`train` shows every candidate as many views of the same images at the same rates, the first epoch's
at 0.6 of its own input, and measures it on images held out of the list fit, at its input and at 0.8
of it. The held-out images are those of ablations.py; the list report is not looked at. Every run
lies below --work with its result: what is finished is not done again, what was stopped goes on.
`time` measures the milliseconds of candidates and of today's network in turn (median, and the
fastest twentieth), in each runtime and, with torch, from a JPEG to boxes; what was measured before
of others stays. Both write --out anew, `plot` draws it.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ablations import split_off, training_minutes
from candidate_networks import CSPDetector, CSPPlan, OSADetector, OSAPlan
from common import claim, machine, write_rows
from vovnet import models
from vovnet.data.open import open_dataset
from vovnet.evaluate.run import evaluate
from vovnet.files import write_atomically
from vovnet.input_spec import InputSpec
from vovnet.lab.bench import Protocol, bench_jobs
from vovnet.lab.competitor import Job
from vovnet.lab.row import BenchRow
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models.detector import Detector, PointDecoder
from vovnet.models.vovdet import STRIDES
from vovnet.models.weights import load_detector
from vovnet.runtimes import Precision
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import load_run, run_training

Plan = OSAPlan | CSPPlan

# Depthwise separable convolutions everywhere, behind a thinner stem.
_SEPARABLE: dict[str, Any] = {
    "stem": (16, 32),
    "mid": (32, 64, 96, 128),
    "units": ("depthwise",) * 4,
    "neck_unit": "depthwise",
    "neck_mid": 64,
    "head_unit": "depthwise",
}
# There the 1×1 that joins a module takes half of the time: it gets fewer outputs, and the chains
# more units of larger kernels.
_LONGER: dict[str, Any] = _SEPARABLE | {
    "out": (32, 96, 192, 320),
    "modules": (1, 1, 3, 1),
    "layers": (2, 4, 4, 4),
    "neck_mid": 48,
    "units": ("depthwise5",) * 4,
    "neck_unit": "depthwise5",
    "head_unit": "depthwise5",
}
_WIDER: dict[str, Any] = {
    "mid": (32, 80, 128, 160),
    "out": (64, 160, 320, 384),
    "neck_mid": 80,
    "width": 80,
}
_THIN: dict[str, Any] = {
    "stem": (16, 32),
    "mid": (16, 48, 64, 72),
    "out": (48, 96, 192, 256),
    "width": 48,
    "neck_mid": 24,
}
_LIGHT: dict[str, Any] = {"neck_unit": "depthwise", "neck_mid": 64, "head_unit": "depthwise"}
# The two parts of nano that take the most time for what they see: its stem, and the second of two
# convolutions in every branch of the heads.
_SLIM: dict[str, Any] = {"stem": (16, 32), "mid": (16, 64, 80, 96), "head_convs": 1}
_LARGE: dict[str, Any] = {
    "mid": (32, 96, 128, 160),
    "out": (96, 192, 384, 480),
    "width": 96,
    "neck_mid": 48,
    "head_convs": 1,
}
# A plan and the side of the input that it is made for. Not all are trained: milliseconds are cheap.
CANDIDATES: dict[str, tuple[Plan, int]] = {
    "nano_224": (OSAPlan(), 224),
    "nano_256": (OSAPlan(), 256),  # today's
    "nano_320": (OSAPlan(), 320),
    "thin_320": (OSAPlan(**_THIN), 320),
    "nano_stem16_256": (OSAPlan(stem=(16, 32), mid=(16, 64, 80, 96)), 256),
    "nano_plain_256": (OSAPlan(ese=False), 256),
    "nano_head1_256": (OSAPlan(head_convs=1), 256),
    "nano_trunk1_256": (OSAPlan(head_trunk=1, head_convs=0), 256),
    "nano_light_256": (OSAPlan(**_LIGHT), 256),
    "nano_light_320": (OSAPlan(stem=(16, 32), mid=(16, 64, 80, 96), **_LIGHT), 320),
    "slim_256": (OSAPlan(**_SLIM), 256),
    "slim_288": (OSAPlan(**_SLIM), 288),
    "slim_320": (OSAPlan(**_SLIM), 320),
    "large_320": (OSAPlan(**_LARGE), 320),
    "grouped_320": (OSAPlan(**_SEPARABLE | {"units": ("grouped",) * 4}), 320),
    "partial_320": (OSAPlan(**_SEPARABLE | {"units": ("partial",) * 4}), 320),
    "dw_256": (OSAPlan(**_SEPARABLE), 256),
    "dw_320": (OSAPlan(**_SEPARABLE), 320),
    "dw_416": (OSAPlan(**_SEPARABLE), 416),
    "dw_wide_320": (OSAPlan(**_SEPARABLE | _WIDER), 320),
    "dw5_320": (OSAPlan(**_LONGER), 320),
    "dw5_384": (OSAPlan(**_LONGER), 384),
    "csp_320": (CSPPlan(), 320),  # YOLOX-nano's plan
    "csp_416": (CSPPlan(), 416),
    "csp_relu_416": (CSPPlan(act="relu"), 416),
}
BASE = "nano_256"
PROTOCOL: dict[str, Any] = {
    "steps": 1200,
    "batch": 16,
    "accumulate": 1,  # batch norms of all see as many images
    "zoom": [0.6, 1.8],
    "mosaic": [0.0, 0.0, 0.0],  # in so short a run it costs (ablations.csv)
    "balance": 0.1,
    "optimizer": "muon",
    "lr": 0.012,
    "amp": "bf16",
    "cache": "disk",
    "workers": 0,
    "save_minutes": 3.0,
}
TIMES = "milliseconds.json"
RUNTIMES: tuple[tuple[str, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("openvino", "int8"),
    ("eager", "fp32"),
)


def multiple(pixels: float) -> int:
    """The nearest multiple of the coarsest stride."""
    return STRIDES[-1] * round(pixels / STRIDES[-1])


def build(plan: Plan, side: int, name: str, trunk: str, names: tuple[str, ...]) -> Detector:
    """A candidate as a detector with VoVDet's criterion, decoder and kind of input."""
    network = CSPDetector if isinstance(plan, CSPPlan) else OSADetector
    return Detector(
        name,
        network(plan, len(names)),
        TaskAlignedLoss(STRIDES),
        PointDecoder(STRIDES),
        InputSpec((side, side), "letterbox", (114.0,) * 3, (58.0,) * 3, multiple=STRIDES[-1]),
        names,
    )


def register() -> None:
    """Make the candidates known by name to all that makes detectors."""
    for name, (plan, side) in CANDIDATES.items():
        family = models.Family(partial(build, plan, side), background=False)
        models._FAMILIES[name] = family


def values_of(name: str, given: argparse.Namespace, voc: Path) -> dict[str, Any]:
    """A candidate's recipe."""
    side = CANDIDATES[name][1]
    return PROTOCOL | {
        "model": name,
        "data": [f"{voc}@fit", *given.beside],
        "val": f"{voc}@holdout",
        "imgsz": side,
        "resolution": [[0.5, multiple(0.6 * side)]],
        "seed": given.seed,
    }


def train(name: str, given: argparse.Namespace, voc: Path) -> dict[str, Any]:
    """Train a candidate, or go on with it; returns its row, which a finished one has ready."""
    folder = given.work / f"{name}.{given.seed}"
    result = folder / "result.json"
    values = values_of(name, given, voc)
    claim(folder, values)
    if result.exists():
        return json.loads(result.read_text())
    resume = (folder / "state.safetensors").exists()
    recipe = load_run(folder) if resume else recipe_from_dict(values)
    last = run_training(recipe, folder, resume=resume, on_row=tell)
    detector = load_detector(folder / "weights" / "last.safetensors")
    beside = multiple(0.8 * CANDIDATES[name][1])
    detector.input_spec = detector.input_spec.with_side(beside, name)
    figures = evaluate(detector, open_dataset(voc, "holdout", detector.names, purpose="val"))
    row: dict[str, Any] = {
        "candidate": name,
        "seed": given.seed,
        "views": (recipe.steps or 0) * (recipe.batch or 0),
        "holdout": given.holdout,
        "imgsz": recipe.imgsz,
        **rounded(last),
        "imgsz_beside": beside,
        **{f"{key}_beside": value for key, value in rounded(figures).items()},
        "train_minutes": training_minutes(folder),
        **machine(),
    }
    write_atomically(result, json.dumps(row, indent=1).encode())
    return row


def rounded(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the candidates are compared by."""
    return {key: round(float(figures[key]), 4) for key in ("map_50", "map_50_95")}


def timed(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By candidate: its counts, milliseconds, and their ratios to today's network's."""
    protocol = Protocol(
        seconds=given.seconds, repeats=given.repeats, threads=2, memory=False, energy=False
    )
    names = dict.fromkeys((BASE, *given.only))
    jobs = [Job(name, None, None, 1, "cpu", *how) for name in names for how in RUNTIMES]
    rows = bench_jobs(jobs, protocol, note=tell)
    found: dict[str, dict[str, Any]] = {}
    base: dict[str, float] = {}
    for row in rows:
        columns = found.setdefault(row.model, {"params": row.params, "macs": row.macs})
        for key, value in milliseconds(row).items():
            if row.model == BASE:
                base[key] = value
            columns[key] = round(value, 2)
            columns[f"{key}_ratio"] = round(value / base[key], 3)
    where = {f"timed_{key}": value for key, value in machine().items()}
    return {name: columns | where for name, columns in found.items()}


def milliseconds(row: BenchRow) -> dict[str, float]:
    """Median and fastest twentieth of the network alone; with torch, of the way to boxes too."""
    if row.error:
        raise SystemExit(f"{row.model} in {row.runtime}: {row.error}")
    name = f"{row.runtime}_{row.precision}_ms"
    measured = {name: row.latency_ms}
    if row.runtime == "eager" and row.stages_ms:
        measured["jpeg_to_boxes_ms"] = row.stages_ms["end_to_end"]
    result: dict[str, float] = {}
    for key, value in measured.items():
        assert value.p50 is not None
        assert value.p5 is not None
        result |= {key: value.p50, f"{key}_p5": value.p5}
    return result


def known_times(work: Path) -> dict[str, dict[str, Any]]:
    """What `timed` found before."""
    path = work / TIMES
    return json.loads(path.read_text()) if path.exists() else {}


def table(work: Path) -> list[dict[str, Any]]:
    """All candidates in their order, with what is known of them so far."""
    times = known_times(work)
    rows: list[dict[str, Any]] = []
    for name in CANDIDATES:
        found = [json.loads(p.read_text()) for p in sorted(work.glob(f"{name}.*/result.json"))]
        at = {"candidate": name, "imgsz": CANDIDATES[name][1]}
        for result in found or [at]:  # also at another size, whose milliseconds nobody took
            rows.append(result | (times.get(name, {}) if result["imgsz"] == at["imgsz"] else {}))
    return rows


def plot(rows: list[dict[str, Any]], out: Path) -> None:
    """Accuracy against milliseconds, one panel a runtime."""
    from matplotlib.figure import Figure

    panels = ("onnxruntime_fp32_ms", "openvino_int8_ms")
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for row in (row for row in rows if "map_50_95" in row and f"{key}_ratio" in row):
            at = row[f"{key}_ratio"], row["map_50_95"]
            axes.plot(*at, "o", color="tab:red" if row["candidate"] == BASE else "tab:blue")
            axes.annotate(row["candidate"], at, (4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(f"{key.removesuffix('_ms').replace('_', ' ')}, time / {BASE}'s")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("map_50_95 on the hold-out")
    figure.savefig(out)


def tell(line: object) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train, time or draw; the table is written anew each time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("train", "time", "plot"))
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/voc2007"))
    parser.add_argument(
        "--beside",
        nargs="*",
        default=["../shared/data/coco2017_part@train", "../shared/data/voc2012_part"],
        help="more images to train on",
    )
    parser.add_argument("--holdout", type=int, default=400, help="images to measure on")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    parser.add_argument("--repeats", type=int, default=8, help="windows")
    parser.add_argument("--work", type=Path, default=Path("runs/candidates"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/candidates.csv"))
    given = parser.parse_args()
    register()
    if given.do == "train":
        voc = split_off(given.data, given.work / "voc", given.holdout)
        for name in given.only:
            tell(train(name, given, voc))
            write_rows(given.out, table(given.work))
    elif given.do == "time":
        times = known_times(given.work) | timed(given)
        write_atomically(given.work / TIMES, json.dumps(times, indent=1).encode())
    rows = table(given.work)
    write_rows(given.out, rows)
    if given.do == "plot":
        plot(rows, given.out.with_suffix(".svg"))
    print(given.out)


if __name__ == "__main__":
    main()
