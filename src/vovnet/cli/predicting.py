"""The verb predict."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vovnet.cli._folder import run_folder
from vovnet.cli._options import (
    Choice,
    Json,
    Many,
    Overwrite,
    Shown,
    exit_code,
)
from vovnet.cli._print import note, print_json
from vovnet.errors import VovnetError

if TYPE_CHECKING:
    from vovnet.predict import Sources


def predict(
    sources: Annotated[list[str], Many],
    *,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    shown: Shown = Shown(),  # noqa: B008
    out: Path | None = None,
    overwrite: Overwrite = False,
    save: bool = True,
    as_json: Json = False,
) -> int:
    """Find objects in pictures; print them, and draw them into annotated copies.

    A source that cannot be read does not keep the others from being done; what a folder holds
    beside pictures is told.

    Parameters
    ----------
    sources
        Files, folders, globs, or skimage:NAME for a photograph inside scikit-image.
    out
        Folder for the annotated pictures (default: the next runs/predict/...). Nothing there is
        replaced.
    overwrite
        Replace earlier annotated pictures in --out, but never one of the sources.
    save
        Write annotated pictures.
    """
    from vovnet.predict import find_sources, predict_files

    found = find_sources(sources)
    detector = choice.resolved().load()
    options = shown.options(detector.names) | {"overwrite": overwrite}
    if out is not None:
        _check_out(out, found.files)
    rows = _tell_sources(found)
    try:
        with run_folder("predict", "predict", out) if save else nullcontext() as folder:
            for row in predict_files(detector, found.files, out=folder, **options):
                rows.append(row.to_dict())
                if row.error is not None:
                    note(row.error)
                elif not as_json:
                    _print_row(rows[-1])
    finally:  # also when stopped: what was found is not lost
        if as_json and rows:
            print_json(rows)
    tried = [row for row in rows if "left_out" not in row]
    failed = sum("error" in row for row in tried)
    if folder is not None and failed < len(tried) and not as_json:
        print(folder)
    return exit_code(failed, len(tried))


def _tell_sources(found: "Sources") -> list[dict[str, Any]]:
    """The rows of sources that give no picture, and of what was left out; both noted."""
    rows: list[dict[str, Any]] = []
    for source, fault in found.faults.items():
        note(str(fault))
        rows.append({"path": source, "error": str(fault), "detections": []})
    for source, kinds in found.left_out.items():
        note(f"{source}: left out: {', '.join(map(str, kinds))}")
        told = [kind._asdict() for kind in kinds]
        rows.append({"path": source, "left_out": told, "detections": []})
    return rows


def _check_out(folder: Path, pictures: list[Path]) -> None:
    """Annotated copies go to a folder of their own: they must not replace what they show."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise VovnetError(f"--out {folder}: is no folder; give a folder")
    if os.path.realpath(folder) in {os.path.realpath(picture.parent) for picture in pictures}:
        raise VovnetError(f"--out {folder}: holds the pictures themselves; give another folder")


def _print_row(row: dict[str, Any]) -> None:
    found = row["detections"]
    print(
        f"{row['path']}: {len(found)} found" + (f" -> {row['annotated']}" * bool(row["annotated"]))
    )
    for item in found:
        box = " ".join(f"{v:.0f}" for v in item["box"].values())
        print(f"  {item['label']:<12} {item['score']:.2f}  {box}")
