"""What a job writes, and what there is to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vovnet.errors import VovnetError
from vovnet.files import refuse_replacing
from vovnet.predict.frames import STDIN
from vovnet.predict.kinds import Kind, kind_of
from vovnet.predict.names import Names
from vovnet.predict.parts import parquet_folder, parts_in
from vovnet.predict.picturefile import picture_suffix
from vovnet.predict.sources import Sources
from vovnet.predict.video import count_frames
from vovnet.predict.writers import CocoResults, Growing, JsonLines, Table


@dataclass(frozen=True)
class Outputs:
    """What a job writes, into the folder `out` but for `jsonl`, which is a file or "-"."""

    out: Path | None = None
    drawn: bool = True
    jsonl: str | None = None
    txt: bool = False
    csv: bool = False
    coco: bool = False
    crops: bool = False
    parquet: bool = False
    mot: bool = False
    overwrite: bool = False
    resume: bool = False
    labels: str = "auto"
    line_width: int | None = None
    colour: str = "class"
    format: str | None = None  # of annotated pictures: None is the source's own

    @property
    def pictured(self) -> bool:
        """Whether the whole pictures are needed."""
        return self.out is not None and (self.drawn or self.crops)

    def growing(self) -> dict[Path, type[Growing]]:
        """The files that rows are added to."""
        files: dict[Path, type[Growing]] = {}
        if self.jsonl not in (None, STDIN):
            files[Path(str(self.jsonl))] = JsonLines
        if self.out is not None:
            files |= {self.out / "detections.csv": Table} if self.csv else {}
            files |= {self.out / "coco.json": CocoResults} if self.coco else {}
        return files


def endless(found: Sources) -> bool:
    """Whether rows come one by one, nobody knows how many: of videos, streams, standard input."""
    return bool(found.live) or any(
        given == STDIN or kind_of(given) is Kind.VIDEO for given in found.files
    )


def count_rows(found: Sources, every: int) -> int | None:
    """How many rows there will be; None where nobody knows."""
    if found.live or STDIN in found.files:
        return None
    total = 0
    for given in found.files:
        count = count_frames(given) if kind_of(given) is Kind.VIDEO else 1
        if count is None:
            return None
        total += -(-count // every)
    return total


def refuse_taken(found: Sources, outputs: Outputs) -> None:
    """Raise `VovnetError` if something is there already that a job would write."""
    if outputs.overwrite and STDIN in found.files:
        raise VovnetError(
            "--overwrite: might replace what standard input is yet to name; leave it out"
        )
    planned = iter(()) if outputs.out is None else _planned(found, outputs, outputs.out)
    refuse_replacing(f"--out {outputs.out}", planned, _inputs(found), overwrite=outputs.overwrite)
    for path in outputs.growing():
        option = f"--jsonl {path}" if str(path) == outputs.jsonl else f"--out {outputs.out}"
        refuse_replacing(option, [path], _inputs(found), overwrite=outputs.overwrite)


def _inputs(found: Sources) -> Iterator[Path]:
    return (given for given in found.files if isinstance(given, Path))


def _planned(found: Sources, outputs: Outputs, out: Path) -> Iterator[Path]:
    """The files whose names are known before anything is found."""
    names = Names()
    for given in found.files:
        if given == STDIN:
            continue
        name, video = names.new(given), kind_of(given) is Kind.VIDEO
        if outputs.drawn:
            suffix = ".mp4" if video else picture_suffix(given, outputs.format)
            yield out / f"{name}{suffix}"
        if outputs.txt and not video:
            yield out / "labels" / f"{name}.txt"
        if outputs.mot and video:
            yield out / "mot" / f"{name}.txt"
    if outputs.parquet:
        yield from parts_in(parquet_folder(out), ".parquet")
