"""What `predict --engine ray` does."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vovnet.cli._options import Choice, Shown, exit_code
from vovnet.cli._predict_options import Reads, Writes
from vovnet.cli._print import note

if TYPE_CHECKING:
    from vovnet.predict import Sources
    from vovnet.predict.job import Taking
    from vovnet.predict.stream import Look


def open_look(
    chosen: Choice, shown: Shown, reads: Reads, threads: int | None = None
) -> "tuple[Look, int | None]":
    """What finds objects, and the side that JPEG files are decoded for (None: whole)."""
    from vovnet.predict.stream import looker

    detector, tiling = chosen.load(threads), reads.tiling()
    look = looker(detector, shown.options(detector.names), tiling, track=reads.track)
    return look, None if tiling else max(detector.input_spec.size)


def predict_on_ray(
    found: "Sources",
    taking: "Taking",
    folder: Path,
    options: tuple[Choice, Shown, Reads, Writes],
    *,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Do all sources on Ray, and print the sums; returns the exit code."""
    from vovnet.predict.on_ray import Work, run_on_ray
    from vovnet.predict.parts import JsonPart, ParquetPart, schema

    chosen, shown, reads, writes = options
    if writes.save_parquet:
        schema()
    if chosen.device == "cpu":
        open_look(chosen, shown, reads)  # what is wrong with it is told here, and once
    work = Work(
        opened=partial(open_look, chosen, shown, reads),
        taking=taking,
        out=folder,
        suffix=ParquetPart.suffix if writes.save_parquet else JsonPart.suffix,
        device=chosen.device or "cpu",
        workers=reads.workers,
    )
    for name, fault in found.faults.items():
        note(str(fault) if name in str(fault) else f"{name}: {fault}")
    for source, kinds in found.left_out.items():
        note(f"{source}: left out: {', '.join(map(str, kinds))}")
    done = run_on_ray(found, work, resume=writes.resume, overwrite=overwrite, tell=note)
    failed = done.failed + done.lost + len(found.faults)
    if as_json:
        print(json.dumps({"out": str(folder), **vars(done)}))
    else:
        print(f"{folder}: {done.rows} pictures and frames, {done.failed} of them failed")
    return exit_code(failed, done.rows + done.lost + len(found.faults))
