"""The paper's tables on this machine: every backbone and detector of it, in every runtime.

    python benchmarks/lab_tables.py [--device cpu] [--batch 1] [--only GROUP ...]
        [--ways RUNTIME:PRECISION ...] [--seconds 0.3] [--repeats 4] [--memory] [--work FILE]
        [--out FOLDER]

The models of a group are measured against each other, interleaved, in torch, then in the runtimes
that read ONNX, then in ncnn, each beside a matrix product. Rows are appended to --work as they
come: run it again after a stop, and it goes on with what is missing, a whole such round at a time.
When all is there it writes into --out:

    lab_cpu.csv          every row, first timm's columns
    lab_cpu_paper.csv    VoVNet against the paper's other networks: ratios here and in the paper
    lab_cpu_paper.md     the same for reading
    lab_cpu_machine.json the machine
    lab_cpu.html         with --html: the report

or lab_cuda… with --device cuda. compile and aoti take a minute a model and int8 some ten seconds:
they are left to --ways.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from common import claim, machine
from vovnet.lab.bench import Protocol, bench_jobs
from vovnet.lab.competitor import Job
from vovnet.lab.export_csv import write_csv
from vovnet.lab.report import write_report
from vovnet.lab.row import BenchRow
from vovnet.lab.table import layers_of

# Models that are measured against each other, and their classes; None is ImageNet's.
GROUPS = {
    "light": (
        (
            *("vovnet27_slim", "peleenet", "mobilenet_v1", "mobilenet_v2"),
            *("shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "alexnet"),
        ),
        None,
    ),
    "large": (
        (
            *("vovnet39", "vovnet57", "resnet50", "resnet101"),
            *("densenet121", "densenet161", "densenet201"),
        ),
        None,
    ),
    "table2": (
        (
            *("dsod300-vovnet27_slim", "dsod300-vovnet27_slim_bottleneck", "dsod300-densenet67"),
            *("pelee304-peleenet", "ssd300-mobilenet_v1"),
        ),
        21,
    ),
    "table4": (
        (
            *("refinedet320-vovnet39", "refinedet320-resnet50", "refinedet320-densenet201"),
            *("refinedet320-vovnet57", "refinedet320-resnet101", "refinedet320-densenet161"),
        ),
        81,
    ),
}
WAYS = {
    "cpu": (
        *("eager:fp32", "channels_last:fp32", "channels_last:bf16", "onnxruntime:fp32"),
        *("openvino:fp32", "openvino:bf16", "ncnn:fp32", "ncnn:bf16"),
    ),
    "cuda": ("channels_last:fp16", "cuda_graph:fp32", "cuda_graph:fp16"),
}


class Printed(NamedTuple):
    """A row of the paper's tables 2 to 4 (TITAN X Pascal, Caffe); its FLOPs are our macs.

    Of Pelee and MobileNet only the products were checked: frames per second times joules are 84
    and 85 W, and MobileNet's times FLOPs 40.7 GFLOP/s.
    """

    gmacs: float
    fps: float
    joules: float | None


PAPER = {
    "dsod300-vovnet27_slim": Printed(5.6, 71, 0.9),
    "dsod300-vovnet27_slim_bottleneck": Printed(4.6, 1000 / 18, None),  # table 3 gives 18 ms
    "dsod300-densenet67": Printed(5.3, 35, 3.7),
    "pelee304-peleenet": Printed(1.2, 35, 2.4),
    "ssd300-mobilenet_v1": Printed(1.1, 37, 2.3),
    "refinedet320-vovnet39": Printed(32.6, 25.0, 4.8),
    "refinedet320-vovnet57": Printed(36.45, 21.2, 5.9),
    "refinedet320-resnet50": Printed(25.43, 23.2, None),
    "refinedet320-resnet101": Printed(33.02, 17.5, None),
    "refinedet320-densenet201": Printed(24.65, 12.0, 9.9),
    "refinedet320-densenet161": Printed(32.74, 12.8, 10.0),
}

# Whom the paper compares with whom: other -> VoVNet.
PAIRS = {
    "dsod300-densenet67": "dsod300-vovnet27_slim",
    "dsod300-vovnet27_slim_bottleneck": "dsod300-vovnet27_slim",
    "pelee304-peleenet": "dsod300-vovnet27_slim",
    "ssd300-mobilenet_v1": "dsod300-vovnet27_slim",
    "refinedet320-resnet50": "refinedet320-vovnet39",
    "refinedet320-densenet201": "refinedet320-vovnet39",
    "refinedet320-resnet101": "refinedet320-vovnet57",
    "refinedet320-densenet161": "refinedet320-vovnet57",
}


def chunks(given: argparse.Namespace) -> Iterator[list[Job]]:
    """What is measured in one go: all models of a group, in torch, then by ONNX, then in ncnn."""
    kinds = {"onnxruntime": "onnx", "openvino": "onnx", "ncnn": "ncnn"}
    for group in given.only:
        names, classes = GROUPS[group]
        by_kind: dict[str, list[Job]] = {}
        for name in names:
            for way in given.ways or WAYS[given.device]:
                runtime, _, precision = way.partition(":")
                job = Job(name, None, classes, given.batch, given.device, runtime, precision)
                by_kind.setdefault(kinds.get(runtime, "torch"), []).append(job)
        yield from by_kind.values()


def read_rows(work: Path) -> dict[tuple[str, str, str], BenchRow]:
    """The last row of every model, runtime and asked precision so far."""
    rows = {}
    if work.exists():
        for line in work.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # cut off when the run was stopped
                continue
            rows[tuple(entry["asked"])] = BenchRow.from_dict(entry["row"])
    return rows


def measure(given: argparse.Namespace, protocol: Protocol) -> None:
    """Measure every chunk that is not whole, and append its rows: compared is only what took turns.

    Exits if the rows so far were measured otherwise, or on another machine.
    """
    here = {key: value for key, value in machine().items() if key != "date"}
    setting = {"device": given.device, "batch": given.batch}
    claim(given.work.parent, {"protocol": asdict(protocol), "machine": here} | setting)
    for jobs in chunks(given):
        done = read_rows(given.work)
        asked = {job: (job.model, job.runtime, job.precision) for job in jobs}
        if all(what in done for what in asked.values()):
            continue
        tell(f"{len(jobs)} rows, from {jobs[0].model} in {jobs[0].runtime}")
        rows = bench_jobs(jobs, protocol, note=tell)
        with open(given.work, "a") as file:
            for job, row in zip(jobs, rows, strict=True):
                file.write(json.dumps({"asked": asked[job], "row": row.to_dict()}) + "\n")


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def against_paper(rows: Sequence[BenchRow]) -> list[dict]:
    """One line a pair, runtime and precision: VoVNet over the other network, here and printed."""
    ranked = {(r.model, r.runtime, r.precision): r for r in rows if r.ranks}
    lines = []
    for (name, runtime, precision), other in ranked.items():
        vovnet = ranked.get((PAIRS.get(name, ""), runtime, precision))
        if vovnet is None:
            continue
        printed, base = PAPER[name], PAPER[vovnet.model]
        lines.append(
            {
                "vovnet": vovnet.model,
                "other": name,
                "runtime": runtime,
                "precision": precision,
                "vovnet_images_per_s": vovnet.images_per_s.value,
                "other_images_per_s": other.images_per_s.value,
                "speed_ratio": ratio(vovnet.images_per_s.value, other.images_per_s.value),
                "speed_ratio_paper": base.fps / printed.fps,
                "flops_rate_ratio": ratio(
                    vovnet.achieved_flops_per_s.value, other.achieved_flops_per_s.value
                ),
                "flops_rate_ratio_paper": base.fps * base.gmacs / (printed.fps * printed.gmacs),
                "energy_ratio": ratio(other.joules_per_image.value, vovnet.joules_per_image.value),
                "energy_ratio_paper": ratio(printed.joules, base.joules),
                "valid": vovnet.latency_ms.valid and other.latency_ms.valid,
            }
        )
    return lines


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b where both are known."""
    return None if a is None or b is None else a / b


def markdown(lines: Sequence[dict], rows: Sequence[BenchRow]) -> str:
    """The comparison as a table for reading, with where it was measured."""
    row = rows[0]
    reasons = {r.joules_per_image.reason for r in rows if r.ranks} - {None}
    text = [
        f"# VoVNet against the paper's other networks, on {device_name(row)}",
        "",
        "Each figure is VoVNet's advantage: its images/s (FLOP/s) over the other's, the other's "
        "joules per image over its. In brackets the paper's own (TITAN X Pascal, Caffe). "
        f"Batch {row.batch}, the network alone, medians; a question mark: the repeats disagree.",
        "",
        f"torch {row.environment['versions']['torch']}, {row.started}.",
        *(f"Energy not measured: {reason}." for reason in sorted(reasons)),
        "",
        "| VoVNet | against | runtime | images/s | speed | FLOP/s | energy |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        pair = f"{line['vovnet_images_per_s']:.3g} : {line['other_images_per_s']:.3g}"
        kinds = ("speed_ratio", "flops_rate_ratio", "energy_ratio")
        cells = [f"{number(line[k])} ({number(line[f'{k}_paper'])})" for k in kinds]
        way = f"{line['runtime']} {line['precision']}{'' if line['valid'] else ' ?'}"
        text.append(f"| {' | '.join([line['vovnet'], line['other'], way, pair, *cells])} |")
    return "\n".join([*text, ""])


def device_name(row: BenchRow) -> str:
    """What a row was measured on."""
    environment = row.environment
    if row.device.startswith("cuda"):
        return f"one {environment['cuda'][0]['name']}"
    return f"{environment['cpu']['torch_threads']} cores of {environment['cpu']['model']}"


def number(value: float | None) -> str:
    """Two digits after the point, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def write_results(rows: Sequence[BenchRow], out: Path, *, html: bool) -> None:
    """All files of `--out`."""
    out.mkdir(parents=True, exist_ok=True)
    name = f"lab_{rows[0].device.partition(':')[0]}"
    write_csv(out / f"{name}.csv", rows)
    lines = against_paper(rows)
    if lines:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        (out / f"{name}_paper.csv").write_text(text.getvalue())
        (out / f"{name}_paper.md").write_text(markdown(lines, rows))
    machine = json.dumps(rows[0].environment, indent=2)
    (out / f"{name}_machine.json").write_text(machine + "\n")
    if html:
        models = ["vovnet39", "resnet50", "densenet201"]
        layers = layers_of(
            [m for m in models if any(r.model == m for r in rows)], None, None, rows[0].batch
        )
        plain = [row.to_dict() for row in rows]
        title = f"The paper's networks on {device_name(rows[0])}"
        write_report(out / f"{name}.html", plain, layers=layers, title=title)


def main() -> None:
    """Measure what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(WAYS), default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--ways", nargs="+", help="RUNTIME:PRECISION (default: by the device)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of one window")
    parser.add_argument("--repeats", type=int, default=4, help="windows of each row")
    parser.add_argument("--memory", action="store_true", help="peak memory too, some 5 s a row")
    parser.add_argument("--html", action="store_true", help="write the report too")
    parser.add_argument("--work", type=Path, default=Path("runs/lab_tables/rows.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    protocol = Protocol(
        seconds=given.seconds,
        repeats=given.repeats,
        warmup=0.2,
        memory=given.memory,
        stages=False,
    )
    measure(given, protocol)
    write_results(list(read_rows(given.work).values()), given.out, html=given.html)
    print(given.out)


if __name__ == "__main__":
    main()
