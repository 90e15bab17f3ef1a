"""The verb bench."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vovnet.cli._options import Json, Many, Overwrite, exit_code, split_commas
from vovnet.cli._print import note, print_json, print_table
from vovnet.errors import EXIT_REFUSED, VovnetError


@Parameter(name="*")
@dataclass(frozen=True)
class Files:
    """What to write."""

    csv: Path | None = None
    """Write a table here, its first columns those of timm's benchmark results. An earlier one is
    replaced, as that of --html is; a file that is measured never."""
    html: Path | None = None
    """Write a report with figures here."""
    png: Path | None = None
    """Write the report's figures as pictures into this folder, which holds none yet."""
    overwrite: Overwrite = False
    """Replace earlier pictures of the same names in --png."""

    def check(self, names: Iterable[str]) -> None:
        """Raise `VovnetError`, before anything is measured, for a file that must stay."""
        from vovnet.files import refuse_replacing

        for option, path in (("--csv", self.csv), ("--html", self.html)):
            if path is not None:
                refuse_replacing(option, [path], map(Path, names), overwrite=True)
        if self.png is not None:
            refuse_replacing("--png", sorted(self.png.glob("*.png")), overwrite=self.overwrite)

    def write(self, rows: list[Any], counted: tuple) -> None:
        """After all is printed: a file that cannot be written must not take the figures with it.
        `counted` says to `layers_of` whose layers to show."""
        from vovnet.lab.export_csv import write_csv
        from vovnet.lab.report import write_figures, write_report
        from vovnet.lab.table import layers_of

        plain = [row.to_dict() for row in rows]
        if self.csv is not None:
            write_csv(self.csv, rows)
        if self.html is None and self.png is None:
            return
        layers = layers_of(*counted)
        if self.html is not None:
            write_report(self.html, plain, layers=layers)
        if self.png is not None and any(row.ranks for row in rows):  # else nothing to draw
            write_figures(self.png, plain, layers=layers)


@Parameter(name="*")
@dataclass(frozen=True)
class Truth:
    """What accuracy is measured on."""

    data: str | None = None
    """A dataset, PATH or PATH@SPLIT, to measure the accuracy of weights on; int8 is calibrated on
    its training split."""
    split: str | None = None
    """Which split of it (default: val, else test)."""

    def judge(self, rows: list[Any], imgsz: int | None, device: str) -> list[Any]:
        """The rows with accuracies measured on the data, if there are some."""
        if self.data is None:
            return rows
        from vovnet.deploy.accuracy import measured_accuracies
        from vovnet.lab.competitor import Job

        jobs = [
            Job(row.model, imgsz, device=device, runtime=row.runtime, precision=row.precision)
            for row in rows
        ]
        found = measured_accuracies(jobs, self.data, self.split, note=note)
        keys = (job.model if job.precision == "fp32" else job for job in jobs)
        figures = (found.get(key, {}) for key in keys)
        return [
            replace(row, map_50=one.get("map_50"), map_50_95=one.get("map_50_95"))
            for row, one in zip(rows, figures, strict=True)
        ]


@Parameter(name="*")
@dataclass(frozen=True)
class Against:
    """What the figures are compared with."""

    against: Path | None = None
    """Compare with an earlier --csv: exit code 4 if a row is slower, or fails."""
    max_slower: str = "5%"
    """How much slower a row may be."""

    def check(self) -> tuple[list[Any] | None, float]:
        """The earlier lines, if there are some, and the share; raises `VovnetError` for others."""
        from vovnet.lab.against import read_earlier

        try:
            number = self.max_slower.removesuffix("%")
            share = float(number) / (100 if number != self.max_slower else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < math.inf:
            raise VovnetError(f"--max-slower {self.max_slower}: write a share such as 5% or 0.05")
        return None if self.against is None else read_earlier(self.against), share


def _compared(rows: list[Any], earlier: list[Any], most: float, as_json: bool) -> bool:
    """Whether a row is slower than before; tells what became of each."""
    from vovnet.lab.against import compare

    changes, said = compare(rows, earlier, most)
    for line in said:
        note(line)
    table = [
        {
            "model": change.model,
            "runtime": change.runtime,
            "precision": change.precision,
            "ms before": change.before,
            "ms now": change.now,
            "×": change.ratio,
            "": change.verdict,
        }
        for change in changes
    ]
    if as_json:  # stdout has the rows
        for row in table:
            note(" ".join(str(value) for value in row.values()))
    else:
        print_table(table)
    return any(change.slower for change in changes)


def bench(
    names: Annotated[list[str], Many],
    *,
    imgsz: int | None = None,
    num_classes: int | None = None,
    batch: int = 1,
    device: str = "cpu",
    runtime: Annotated[tuple[str, ...], Many] = ("eager",),
    precision: Annotated[tuple[str, ...], Many] = ("fp32",),
    seconds: float = 1.0,
    repeats: int = 5,
    threads: int | None = None,
    memory: bool = True,
    truth: Truth = Truth(),  # frozen
    files: Files | None = None,
    against: Against = Against(),  # frozen
    as_json: Json = False,
) -> int:
    """Measure models against each other on this machine: time, memory, energy, and the roofs.

    Models run in every runtime and precision, in turn, beside a matrix product and a memory copy.

    Parameters
    ----------
    names
        Models as `vovnet models` lists them, weights (a shipped name or a .safetensors file),
        timm:NAME, torchvision:NAME (with @FILE: its checkpoint), an .onnx file, the .xml of an
        OpenVINO IR, or FILE.py:FUNCTION, which is run and makes a network; example() in the same
        file may give the images that it takes.
    imgsz
        Input side in pixels (default: the model's own).
    num_classes
        Classes, counted as the literature does (default: the model's own).
    batch
        Images per pass.
    device
        cpu, cuda or cuda:N.
    runtime
        One or more, with commas or spaces between: eager, channels_last, cuda_graph, compile,
        aoti, onnxruntime, openvino, ncnn, tensorrt.
    precision
        One or more: fp32, bf16, fp16, int8.
    seconds
        Length of one window of measuring.
    repeats
        Windows per row; two or more tell whether the figures hold.
    threads
        Threads of every runtime (default: torch's number).
    memory
        Measure peak memory, in a process of its own for each row.
    """
    from vovnet.lab.bench import Protocol
    from vovnet.lab.bench import bench as measure

    files = files or Files()
    files.check(names)
    earlier, most = against.check()
    rows = measure(
        names,
        imgsz=imgsz,
        num_classes=num_classes,
        batch=batch,
        device=device,
        runtimes=split_commas(runtime),
        precisions=split_commas(precision),
        protocol=Protocol(seconds=seconds, repeats=repeats, threads=threads, memory=memory),
        note=note,
    )
    rows = truth.judge(rows, imgsz, device)
    _show(rows, truth.data is not None, as_json)
    files.write(rows, (names, imgsz, num_classes, batch))
    for path in filter(None, () if as_json else (files.csv, files.html, files.png)):
        if path.exists():
            print(path)
    if earlier is not None and _compared(rows, earlier, most, as_json):
        return EXIT_REFUSED
    return exit_code(sum(row.error is not None for row in rows), len(rows))


def _show(rows: list[Any], judged: bool, as_json: bool) -> None:
    from vovnet.lab.results import rank

    if as_json:
        print_json([row.to_dict() for row in rows])
    else:
        print_table([_line(row, judged) for row in rank(rows)])
        print(_legend(rows[0]))


def _line(row: Any, judged: bool) -> dict[str, Any]:
    """The columns of the console table, with units in their names."""
    return {
        "model": row.model,
        "runtime": row.runtime,
        "precision": row.precision,
        **({"map_50_95": row.map_50_95} if judged else {}),
        "ms": row.latency_ms.value,
        "p95 ms": row.latency_ms.p95,
        "images/s": row.images_per_s.value,
        "GFLOP/s": _scaled(row.achieved_flops_per_s, 1e9),
        "×matmul": row.peak_fraction.value,
        "end to end ms": row.stages_ms["end_to_end"].value if row.stages_ms else None,
        "memory MB": _scaled(row.peak_memory_bytes, 1e6),
        "J/image": row.joules_per_image.value,
        "": _mark(row),
    }


def _scaled(measurement: Any, unit: float) -> float | None:
    return None if measurement.value is None else measurement.value / unit


def _mark(row: Any) -> str:
    if row.error is not None:
        return "failed"
    if row.correct is False:
        return "wrong"
    if not row.latency_ms.valid:
        return "unsteady"
    return "unchecked" if row.correct is None else "ok"


def _legend(row: Any) -> str:
    """What the table does not say: the machine's own rates, and why there is no energy."""
    matmul, copy = row.matmul_flops_per_s, row.copy_bytes_per_s
    roofs = ""
    if matmul.value is not None and copy.value is not None:
        roofs = f"matrix product {matmul.value / 1e9:.0f} GFLOP/s, copy {copy.value / 1e9:.1f} GB/s"
    why = ""
    if row.error is None and row.joules_per_image.reason is not None:
        why = f"energy: {row.joules_per_image.reason}"
    marks = (
        "unsteady: repeats (of four or more, their middle half) differ by more than 10 %; "
        "wrong: not torch's answer, not ranked; unchecked: torch has none to compare with"
    )
    return "\n".join(filter(None, (roofs, why, marks)))
