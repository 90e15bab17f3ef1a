"""Accuracy of what `bench` and `pick` measure: of a model in float32, of all else by itself."""

from collections.abc import Callable, Iterable
from pathlib import Path

from vovnet.data.open import open_dataset, parse_source
from vovnet.deploy.calibration import calibration_pictures
from vovnet.errors import VovnetError
from vovnet.evaluate.run import evaluate
from vovnet.lab.competitor import Job
from vovnet.load import default_runtime, load_detector

Figures = dict[str, float]


def measured_accuracies(
    jobs: Iterable[Job],
    data: str,
    split: str | None = None,
    *,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str | Job, Figures]:
    """ "map_50" and "map_50_95" by the jobs' models in float32, by job in every other precision.
    int8 is calibrated on pictures of the training split.

    Models that are no detectors of the data's classes have none; `note` is told why, and what goes
    on.
    """
    path, given = parse_source(data)
    found: dict[str | Job, Figures] = {}
    for job in dict.fromkeys(jobs):
        own = job.precision != "fp32"
        key = job if own else job.model
        if key in found or found.get(job.model) == {}:
            continue
        what = f"{job.model} {job.runtime} {job.precision}" if own else job.model
        note(f"evaluating {what}")
        try:
            found[key] = _figures(job, path, split or given)
        except VovnetError as error:
            note(f"{what}: no accuracy: {error}")
            found[key] = {}
    return {key: figures for key, figures in found.items() if figures}


def _figures(job: Job, path: Path, split: str | None) -> Figures:
    runtime = default_runtime(job.model, job.device, job.imgsz)
    detector = load_detector(
        job.model, runtime=runtime, device=job.device, imgsz=job.imgsz, fuse=True
    )
    truth = open_dataset(path, split, detector.names, purpose="val")
    if job.precision != "fp32":
        detector = load_detector(
            job.model,
            runtime=job.runtime,
            precision=job.precision,
            device=job.device,
            imgsz=job.imgsz,
            calibration=calibration_pictures(path, truth) if job.precision == "int8" else (),
        )
    figures = evaluate(detector, truth)
    wanted = {key: figures[key] for key in ("map_50", "map_50_95")}
    return {key: value for key, value in wanted.items() if value is not None}
