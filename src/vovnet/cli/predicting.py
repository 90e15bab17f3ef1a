"""The verb predict."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vovnet.cli._fleet import open_look, predict_on_ray
from vovnet.cli._folder import run_folder
from vovnet.cli._options import (
    Choice,
    Json,
    Many,
    Overwrite,
    Shown,
    exit_code,
)
from vovnet.cli._predict_options import Reads, Writes, job_facts
from vovnet.cli._print import note
from vovnet.cli._progress import Progress
from vovnet.errors import VovnetError

if TYPE_CHECKING:
    from vovnet.predict import Row, Sources
    from vovnet.predict.shards import Shard


def predict(
    sources: Annotated[list[str], Many],
    *,
    choice: Choice = Choice(),  # noqa: B008  # frozen
    shown: Shown = Shown(),  # noqa: B008
    reads: Reads = Reads(),  # noqa: B008
    writes: Writes = Writes(),  # noqa: B008
    out: Path | None = None,
    overwrite: Overwrite = False,
    save: bool | None = None,
    as_json: Json = False,
) -> int:
    """Find objects in pictures, videos and live streams; print them, and draw them into annotated
    copies.

    A source that cannot be read does not keep the others from being done; what a folder holds
    beside pictures is told. Of videos and streams, --json prints a line for each frame.

    Parameters
    ----------
    sources
        Files, folders, globs, videos, a .txt file that lists them, - for such a list on standard
        input, http(s) and rtsp addresses, 0 for the first camera, or skimage:NAME for a photograph
        inside scikit-image.
    out
        Folder for the annotated pictures (default: the next runs/predict/...). Nothing there is
        replaced.
    overwrite
        Replace earlier annotated pictures in --out, but never one of the sources.
    save
        Write annotated pictures and videos (default: yes, but not with --engine ray).
    """
    from vovnet.predict import find_sources
    from vovnet.predict.job import open_job
    from vovnet.predict.plan import count_rows, endless

    on_ray = reads.engine == "ray"
    writes.check(out, track=reads.track, as_json=as_json)
    if on_ray:
        writes.check_for_ray(save)
    drawn = save is not False and not on_ray
    chosen, shard = choice.resolved(), reads.own_shard()
    facts = job_facts(chosen, shown, reads, writes, drawn)
    taking = reads.taking(shown.conf, shard, facts, note)
    foldered = drawn or on_ray or writes.into_folder or out is not None
    found = find_sources(sources, recursive=reads.recursive)
    if shard is not None:
        found, out = shard.of(found), _shard_folder(shard, out, foldered)
    if out is not None:
        _check_out(out, {os.path.dirname(path) for path in found.files if isinstance(path, Path)})
    with run_folder("predict", "predict", out) if foldered else nullcontext() as folder:
        if on_ray and folder is not None:
            options = chosen, shown, reads, writes
            return predict_on_ray(
                found, taking, folder, options, overwrite=overwrite, as_json=as_json
            )
        look, side = open_look(chosen, shown, reads)
        outputs = writes.outputs(folder, shard, save=drawn, overwrite=overwrite)
        with open_job(found, outputs, taking) as job:
            told, rows = _tell_sources(found), job.rows(look, side)
            progress = Progress(lambda: count_rows(found, reads.every), lambda: job.skipped)
            show = _shown_rows(as_json, writes.jsonl == "-", lines=endless(found))
            failed, tried = _print_rows(told, rows, progress, show, as_json)
    if folder is not None and failed < tried and not as_json and writes.jsonl != "-":
        print(folder)
    return exit_code(failed, tried)


def _shard_folder(shard: "Shard", out: Path | None, needed: bool) -> Path | None:
    """Where a shard writes; all of them are given one folder."""
    if out is not None:
        return shard.folder(out)
    if needed:
        raise VovnetError("--shard: give the folder of all shards, --out FOLDER, or --no-save")
    return None


def _print_rows(
    told: list[dict[str, Any]],
    rows: Iterable["Row"],
    progress: Progress,
    shown: AbstractContextManager[Any],
    as_json: bool,
) -> tuple[int, int]:
    """Print every row as it comes; how many failed, and of how many."""
    failed = tried = sum("error" in row for row in told)
    with shown as show:
        for source in told if as_json else ():
            show(source)
        for row in rows:
            progress.clear()
            tried += 1
            failed += row.error is not None
            if row.error is not None:
                note(row.error)
            if as_json or row.error is None:
                show(row.to_dict())
            progress.advance()
        progress.clear()
    return failed, tried


def _shown_rows(as_json: bool, silent: bool, *, lines: bool) -> AbstractContextManager[Any]:
    """The function that prints a row on standard output; nothing where that has other use."""
    if as_json:
        return _json_rows(lines)
    return nullcontext((lambda row: None) if silent else _print_row)


@contextmanager
def _json_rows(lines: bool) -> Iterator[Any]:
    """A function that prints a row: as a line, or else into one indented list, whose end is printed
    also if this is stopped. Nothing is printed if there is no row."""
    count = 0

    def show(row: dict[str, Any]) -> None:
        nonlocal count
        if lines:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        else:
            text = json.dumps([row], indent=2, ensure_ascii=False)
            print(f"{'[' if not count else ','}\n{text[2:-2]}", end="")
        count += 1

    try:
        yield show
    finally:
        if count and not lines:
            print("\n]")


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


def _check_out(folder: Path, pictured: set[str]) -> None:
    """Annotated copies go to a folder of their own: they must not replace what they show."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise VovnetError(f"--out {folder}: is no folder; give a folder")
    if os.path.realpath(folder) in map(os.path.realpath, pictured):
        raise VovnetError(f"--out {folder}: holds the pictures themselves; give another folder")


def _print_row(row: dict[str, Any]) -> None:
    found = row["detections"]
    if "frame" in row:
        crossed = "".join(
            f"; {label} {count['in']} in, {count['out']} out"
            for label, count in row.get("counts", {}).items()
        )
        counts = Counter(item["label"] for item in found)
        words = ", ".join(f"{count} {label}" for label, count in counts.items()) or "nothing"
        print(f"{row['path']} {row['frame']} ({row['time']:.2f} s): {words}{crossed}", flush=True)
        return
    print(
        f"{row['path']}: {len(found)} found" + (f" -> {row['annotated']}" * bool(row["annotated"]))
    )
    for item in found:
        box = " ".join(f"{v:.0f}" for v in item["box"].values())
        print(f"  {item['label']:<12} {item['score']:.2f}  {box}")
