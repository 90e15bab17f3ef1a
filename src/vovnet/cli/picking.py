"""The verb pick."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from vovnet.cli._folder import run_folder
from vovnet.cli._options import Choice, Json, Many, split_commas
from vovnet.cli._print import note, print_json, print_table, without
from vovnet.errors import EXIT_OK, EXIT_REFUSED, VovnetError


def pick(
    *,
    task: Literal["detect"] = "detect",
    candidates: Annotated[list[str] | None, Many] = None,
    max_ms: float | None = None,
    max_joules: float | None = None,
    max_memory: float | None = None,
    min_map: float | None = None,
    objective: Literal["latency", "accuracy", "energy", "memory"] | None = None,
    data: str | None = None,
    split: str | None = None,
    val_results: Annotated[list[Path] | None, Many] = None,
    imgsz: int | None = None,
    device: str = "cpu",
    runtime: Annotated[list[str] | None, Many] = None,
    precision: Annotated[list[str] | None, Many] = None,
    out: Path | None = None,
    as_json: Json = False,
) -> int:
    """Measure detectors in every runtime on this machine and choose one within your limits.

    Of those within all limits the best by the objective is chosen, ties by latency. Accuracy is
    that of the weights in float32, which bf16 keeps; int8, calibrated on noise, has none here.

    Parameters
    ----------
    task
        What the candidates do.
    candidates
        Weights (shipped names or .safetensors files) or models (default: what ships).
    max_ms
        Most milliseconds for one image, from JPEG to boxes (the network alone, if a candidate is no
        detector of ours).
    max_joules
        Most joules for one image, idle power included.
    max_memory
        Most megabytes (10⁶ bytes) of peak memory.
    min_map
        Least mAP, IoU .50:.95.
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
    """
    from vovnet.lab.pick import config_text, jobs_for
    from vovnet.lab.pick import pick as measure_and_pick
    from vovnet.shipped import SHIPPED

    limits = _limits(latency=max_ms, energy=max_joules, memory=max_memory, accuracy=min_map)
    names = candidates or list(SHIPPED)
    _check_out(out, [*names, data or "", *(val_results or [])])
    jobs = jobs_for(
        names,
        imgsz=imgsz,
        device=device,
        runtimes=split_commas(runtime or []),
        precisions=split_commas(precision or []),
    )
    accuracies = _accuracies(names, data, split, val_results or [], imgsz, device)
    picked = measure_and_pick(jobs, accuracies, limits, objective, note=note)
    if all(candidate.unusable for candidate in picked.candidates.values()):
        raise VovnetError(f"no candidate can be used; the first: {picked.decision.fell[0][1]}")
    path = _write(config_text(picked), out) if picked.decision.choice is not None else None
    _show(picked, path, as_json)
    return EXIT_OK if path else EXIT_REFUSED


def _check_out(out: Path | None, inputs: Iterable[str | Path]) -> None:
    """The choice may take the place of an earlier one, never of what it is made from."""
    from vovnet.files import refuse_replacing

    if out is not None:
        refuse_replacing("--out", [out], map(Path, inputs), overwrite=True)


def _limits(**given: float | None) -> Any:
    """The limits that were given."""
    limits = {name: limit for name, limit in given.items() if limit is not None}
    for name, limit in limits.items():
        if not limit > 0:
            raise VovnetError(f"limit of {name} {limit:g}: must be above 0")
    return limits


def _accuracies(
    names: list[str],
    data: str | None,
    split: str | None,
    files: list[Path],
    imgsz: int | None,
    device: str,
) -> dict[str, float]:
    """mAP by candidate: evaluated here if there is data, else as the files say."""
    from vovnet.data.open import open_dataset, parse_source
    from vovnet.evaluate.run import evaluate
    from vovnet.lab.pick import read_accuracies

    accuracies = {name: value for path in files for name, value in read_accuracies(path).items()}
    if data is None:
        return accuracies
    path, given_split = parse_source(data)
    for name in names:
        note(f"evaluating {name}")
        try:
            detector = Choice(name, imgsz=imgsz, device=device).resolved().load()
            dataset = open_dataset(path, split or given_split, detector.names, purpose="val")
            metrics = evaluate(detector, dataset)
        except VovnetError as error:
            note(f"{name}: no accuracy: {error}")
            continue
        if metrics["map_50_95"] is not None:
            accuracies[name] = metrics["map_50_95"]
    return accuracies


def _write(text: str, out: Path | None) -> Path:
    from vovnet.files import write_atomically

    if out is not None:
        write_atomically(out, text.encode())
        return out
    with run_folder("pick", "pick") as folder:
        path = folder / "config.yaml"
        write_atomically(path, text.encode())
        return path


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
        print_table([without(row, "map_compared") for row in rows])
        if any(row["map_50_95"] and not row["map_compared"] for row in rows):
            print("map_50_95: as the weights' files say, on their own data; give --data to compare")
    if path is None:
        note(f"no candidate is within the limits; {closest or 'none has all limits measured'}")
    elif not as_json:
        print(path)
