"""The verb doctor."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vovnet.cli._options import Json, Many
from vovnet.cli._print import note, print_json, tracked
from vovnet.errors import EXIT_OK, EXIT_REFUSED, VovnetError

if TYPE_CHECKING:
    from vovnet.data.doctor import Examined, Report
    from vovnet.data.placing import View

_EXAMPLES = 3  # of each kind, where every one would be too many to read


def doctor(
    data: str | None = None,
    *,
    split: Annotated[list[str] | None, Many, Parameter(negative=())] = None,
    fix: Path | None = None,
    pixels: bool | None = None,
    workers: int | None = None,
    imgsz: int | None = None,
    model: str | None = None,
    explain: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> int:
    """Find every fault of a dataset that ruins training, before the first epoch.

    Exit code 0 with nothing worse than warnings, 4 with errors (with --fix: errors of the copy).

    Parameters
    ----------
    data
        A VOC, COCO or YOLO dataset, PATH or PATH@SPLIT.
    split
        Which splits (default: all, and the files that are in none).
    fix
        Write a cleaned copy into this new folder; the dataset itself is never changed.
    pixels
        Decode every image (default: of datasets up to 20,000 images; else only headers are read).
    workers
        Threads (default: one a processor, eight at most).
    imgsz
        Input side that it is meant for: objects too small for that are told (default: 640, or the
        model's own).
    model
        The model that it is meant for.
    explain
        List every kind of fault: what it means, the mend, and what --fix does.
    """
    from vovnet.data.doctor import examine
    from vovnet.data.open import parse_source

    if explain:
        return _explain(as_json)
    if data is None:
        raise VovnetError("no DATA: give a dataset, or --explain for all kinds of faults")
    if workers is not None and workers < 1:
        raise VovnetError(f"--workers {workers}: must be at least 1")
    path, given_split = parse_source(data)
    splits = [*([given_split] if given_split else []), *(split or [])]
    view = _view(imgsz, model)
    examined = examine(path, splits, pixels=pixels, workers=workers, track=tracked, view=view)
    if fix is not None:
        return _fix(examined, fix, workers, view, as_json)
    if as_json:
        print_json(examined.report.to_dict())
    else:
        _print_report(examined.report)
    return EXIT_REFUSED if examined.report.errors else EXIT_OK


def _view(imgsz: int | None, model: str | None) -> "View":
    """How large a network will see the images."""
    from vovnet.data.doctor import USUAL_VIEW
    from vovnet.data.placing import View

    if imgsz is not None and imgsz < 1:
        raise VovnetError(f"--imgsz {imgsz}: must be at least 1")
    if model is None:
        return USUAL_VIEW if imgsz is None else View((imgsz, imgsz))
    from vovnet.models import create_detector

    spec = create_detector(model, ("object",)).input_spec
    spec = spec.with_side(imgsz, model) if imgsz else spec
    return View(spec.size, spec.fit == "warp")


def _fix(examined: "Examined", fix: Path, workers: int | None, view: "View", as_json: bool) -> int:
    """Write the copy, examine it like the original, and print both."""
    from vovnet.data.doctor import examine, write_clean_copy

    report = examined.report
    findings = write_clean_copy(examined, fix)
    pixels = report.pixels
    copy = examine(fix, pixels=pixels, workers=workers, track=tracked, view=view).report
    if as_json:
        keys = ("data", "splits", "images", "boxes", "counts", "verdict")
        told = {"findings": [finding.to_dict() for finding in findings]}
        print_json(report.to_dict() | told | {"copy": {k: copy.to_dict()[k] for k in keys}})
    else:
        _print_report(report)
        for (id_, done), same in groupby(sorted((f.id, f.done) for f in findings if f.done)):
            print(f"fixed   {id_} {len(list(same))}×: {done}")
        numbers = f"{copy.images} images, {copy.boxes} boxes"
        print(f"copy of {numbers}, examined again: {copy.verdict}")
        print(fix)
    return EXIT_REFUSED if copy.errors else EXIT_OK


def _explain(as_json: bool) -> int:
    from vovnet.data.doctor import KINDS

    if as_json:
        print_json([kind._asdict() for kind in KINDS.values()])
        return EXIT_OK
    for kind in KINDS.values():
        print(f"{kind.id} {kind.name} ({kind.severity}): {kind.meaning}")
        print(f"      mend: {kind.mend}; --fix: {kind.fix or 'left as it is'}")
    return EXIT_OK


def _print_report(report: "Report") -> None:
    splits = ", ".join(f"{split} {count}" for split, count in report.splits.items())
    print(f"{report.layout} set: {report.images} images ({splits}), {report.boxes} boxes")
    for kind, same in groupby(report.findings, key=lambda finding: finding.kind):
        found = list(same)
        print(f"{kind.severity:<7} {kind.id} {kind.name}: {len(found)}; {kind.mend}")
        for finding in found[:_EXAMPLES]:
            print(f"    {finding}")
        if len(found) > _EXAMPLES:
            print(f"    ... and {len(found) - _EXAMPLES} more (--json lists all)")
    if not report.pixels:
        note(f"{report.images} images, of which only headers were read; --pixels decodes them")
    print(report.verdict)
