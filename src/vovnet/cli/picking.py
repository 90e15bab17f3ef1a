"""The verb pick."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from vovnet.cli._folder import run_folder
from vovnet.cli._options import Json, Many, split_commas
from vovnet.cli._print import note, print_json, print_table, without
from vovnet.errors import EXIT_OK, EXIT_REFUSED, VovnetError


@Parameter(name="*")
@dataclass(frozen=True)
class Bounds:
    """What a choice must keep to."""

    max_ms: float | None = None
    """Most milliseconds for one image, from JPEG to boxes (the network alone, if the boxes of one
    cannot be read)."""
    max_joules: float | None = None
    """Most joules for one image, idle power included."""
    max_memory: float | None = None
    """Most megabytes (10⁶ bytes) of peak memory."""
    min_map: float | None = None
    """Least mAP, IoU .50:.95."""

    def limits(self) -> Any:
        """The limits that were given, by quantity; raises `VovnetError` unless all are above 0."""
        given = {
            "latency": self.max_ms,
            "energy": self.max_joules,
            "memory": self.max_memory,
            "accuracy": self.min_map,
        }
        limits = {name: limit for name, limit in given.items() if limit is not None}
        for name, limit in limits.items():
            if not limit > 0:
                raise VovnetError(f"limit of {name} {limit:g}: must be above 0")
        return limits


def pick(
    *,
    task: Literal["detect"] = "detect",
    candidates: Annotated[list[str] | None, Many] = None,
    bounds: Bounds = Bounds(),  # frozen
    objective: Literal["latency", "accuracy", "energy", "memory"] | None = None,
    data: str | None = None,
    split: str | None = None,
    val_results: Annotated[list[Path] | None, Many] = None,
    imgsz: int | None = None,
    device: str = "cpu",
    runtime: Annotated[list[str] | None, Many] = None,
    precision: Annotated[list[str] | None, Many] = None,
    out: Path | None = None,
    html: Path | None = None,
    as_json: Json = False,
) -> int:
    """Measure detectors in every runtime on this machine and choose one within your limits.

    Of those within all limits the best by the objective is chosen, ties by latency. Accuracy is
    that of the weights in float32; with --data every precision's own is measured, and int8 is
    calibrated on images of the training split. What does not find the classes of --data is left
    out.

    Parameters
    ----------
    task
        What the candidates do.
    candidates
        Weights (shipped names or .safetensors files), models, or another project's .onnx or
        .xml files, described beside them (default: what ships).
    objective
        What to be best in (default: accuracy if it is known of all, else latency).
    data
        A dataset to evaluate the candidates on, PATH or PATH@SPLIT.
    split
        Which split of it (default: val, else test).
    val_results
        Files of what `vovnet val --json` printed, for candidates of the same names.
    imgsz
        Input side in pixels (default: the weights' own).
    device
        What to measure on: cpu, cuda or cuda:1.
    runtime
        Runtimes (default: all that open in seconds; compile and aoti take a minute a model).
    precision
        Precisions (default: all that each runtime has).
    out
        YAML file for the choice (default: config.yaml in the next runs/pick/...). An earlier one is
        replaced, but never weights, data or results that are given.
    html
        Write a page with all candidates, the front drawn, and what was measured; likewise.
    """
    from vovnet.lab.pick import config_text, jobs_for
    from vovnet.lab.pick import pick as measure_and_pick
    from vovnet.shipped import SHIPPED

    limits = bounds.limits()
    names = candidates or list(SHIPPED)
    _check_outputs({"--out": out, "--html": html}, [*names, data or "", *(val_results or [])])
    jobs = jobs_for(
        names,
        imgsz=imgsz,
        device=device,
        runtimes=split_commas(runtime or []),
        precisions=split_commas(precision or []),
    )
    accuracies = _accuracies(jobs, data, split, val_results or [])
    jobs = _judged(jobs, accuracies, data)
    picked = measure_and_pick(jobs, accuracies, limits, objective, note=note)
    if all(candidate.unusable for candidate in picked.candidates.values()):
        raise VovnetError(f"no candidate can be used; the first: {picked.decision.fell[0][1]}")
    path = (
        _write(config_text(picked, data, split), out)
        if picked.decision.choice is not None
        else None
    )
    _show(picked, path, as_json)
    _write_page(picked, html)
    return EXIT_OK if path else EXIT_REFUSED


def _check_outputs(outputs: dict[str, Path | None], inputs: Iterable[str | Path]) -> None:
    """Choice and page may take the place of earlier ones, never of what they are made from."""
    from vovnet.files import refuse_replacing

    paths = [*map(Path, inputs)]
    for option, out in outputs.items():
        if out is not None:
            refuse_replacing(option, [out], paths, overwrite=True)


def _accuracies(
    jobs: list[Any], data: str | None, split: str | None, files: list[Path]
) -> dict[Any, float]:
    """mAP by candidate, of int8 by job: evaluated here if there is data, else as the files say."""
    from vovnet.deploy.accuracy import measured_accuracies
    from vovnet.lab.pick import read_accuracies

    accuracies: dict[Any, float] = {}
    for file in files:
        accuracies |= read_accuracies(file)
    if data is not None:
        found = measured_accuracies(jobs, data, split, note=note)
        accuracies |= {key: figures["map_50_95"] for key, figures in found.items()}
    return accuracies


def _judged(jobs: list[Any], accuracies: dict[Any, float], data: str | None) -> list[Any]:
    """The jobs that have an accuracy on the data: what does not find their classes is no choice."""
    from vovnet.lab.pick import accuracy_of

    if data is None:
        return jobs
    judged = [job for job in jobs if accuracy_of(job, accuracies) is not None]
    if not judged:
        raise VovnetError(
            f"no candidate finds the classes of {data}; train one: vovnet train --data {data}"
        )
    if left_out := sorted({job.model for job in jobs} - {job.model for job in judged}):
        note(f"left out, for they have no accuracy on {data}: {', '.join(left_out)}")
    return judged


def _write(text: str, out: Path | None) -> Path:
    from vovnet.files import write_atomically

    if out is not None:
        write_atomically(out, text.encode())
        return out
    with run_folder("pick", "pick") as folder:
        path = folder / "config.yaml"
        write_atomically(path, text.encode())
        return path


def _write_page(picked: Any, html: Path | None) -> None:
    from vovnet.lab.pick import table
    from vovnet.lab.report import write_choice

    if html is not None:
        write_choice(html, table(picked), [row.to_dict() for row in picked.rows.values()])


def _show(picked: Any, path: Path | None, as_json: bool) -> None:
    from vovnet.lab.pick import table

    decision = picked.decision
    closest = decision.closest and f"closest: {decision.closest.label} misses {decision.misses}"
    if as_json:
        print_json(
            {
                "choice": table(picked)[0] if path else None,
                "closest": closest,
                "objective": picked.objective,
                "limits": picked.limits,
                "config": None if path is None else str(path),
                "table": table(picked),
            }
        )
    else:
        rows = table(picked)
        print_table([without(row, "map_compared", "stages_ms") for row in rows])
        if any(row["map_50_95"] and not row["map_compared"] for row in rows):
            print("map_50_95: as the weights' files say, on their own data; give --data to compare")
    if path is None:
        note(f"no candidate is within the limits; {closest or 'none has all limits measured'}")
    elif not as_json:
        print(path)
