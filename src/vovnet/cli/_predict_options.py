"""The options of predict beyond those that other verbs share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vovnet.cli._options import Choice, Shown
from vovnet.errors import VovnetError

if TYPE_CHECKING:
    from vovnet.detect.tiles import Tiling
    from vovnet.predict.job import Taking
    from vovnet.predict.plan import Outputs
    from vovnet.predict.shards import Shard

Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True)
class Reads:
    """How sources are read."""

    recursive: Flag = False
    """Also take the pictures of the folders in folders."""
    every: int = 1
    """Of a video every N-th frame."""
    batch: int = 1
    """Pictures that the detector is given at once."""
    keep_all: Flag = False
    """Of a live source all frames in turn (default: the newest, the others are dropped)."""
    max_fps: float | None = None
    """Of a live source at most so many frames a second."""
    tile: int | None = None
    """Look at large pictures in squares of so many pixels, then at the whole."""
    overlap: float = 0.2
    """By what share of their side such squares overlap."""
    track: Flag = False
    """Follow objects through videos: each keeps its number."""
    count_line: str | None = None
    """Count who crosses the line X1,Y1,X2,Y2 in videos, in and out; needs --track."""
    shard: str | None = None
    """Take shard i of n, i/n with i from 1: n such processes, given the same sources and --out, do
    each source once."""

    engine: Literal["ray"] | None = None
    """Where to compute: ray spreads the sources over workers, here or on the cluster at
    RAY_ADDRESS, and writes OUT/part-00001.jsonl and so on (with --save-parquet .parquet)."""
    workers: int | None = None
    """Workers of --engine ray (default: one a core, or a GPU)."""

    def own_shard(self) -> "Shard | None":
        """The shard, if there is one; raises `VovnetError` for what is none."""
        from vovnet.predict.shards import Shard

        return None if self.shard is None else Shard.parse(self.shard)

    def tiling(self) -> "Tiling | None":
        """The squares, if there are any; raises `VovnetError` for such as make no sense."""
        from vovnet.detect.tiles import Tiling

        return None if self.tile is None else Tiling(self.tile, self.overlap)

    def line(self) -> tuple[float, float, float, float] | None:
        """The ends of the count line; raises `VovnetError` for what is none."""
        if self.count_line is None:
            return None
        if not self.track:
            raise VovnetError("--count-line: needs tracks; add --track")
        try:
            x1, y1, x2, y2 = map(float, self.count_line.split(","))
        except ValueError:
            raise VovnetError(
                f"--count-line {self.count_line}: give two points in pixels, X1,Y1,X2,Y2"
            ) from None
        return x1, y1, x2, y2

    def taking(
        self, conf: float, shard: "Shard | None", facts: Any, tell: Callable[[str], None]
    ) -> "Taking":
        """How a job takes its sources; raises `VovnetError` for numbers that make no sense."""
        from vovnet.predict.job import Taking

        return Taking(
            every=self.every,
            batch=self.batch,
            keep_all=self.keep_all,
            max_fps=self.max_fps,
            track_from=conf if self.track else None,
            count_line=self.line(),
            shard=shard,
            facts=facts,
            tell=tell,
        )


@Parameter(name="*")
@dataclass(frozen=True)
class Writes:
    """What is written beside annotated pictures."""

    jsonl: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """A file for lines of JSON, one a picture or frame, as they arise; - is standard output."""
    save_txt: Flag = False
    """Write YOLO's label files, with scores: OUT/labels/NAME.txt."""
    save_csv: Flag = False
    """Write a table, one line an object: OUT/detections.csv."""
    save_coco: Flag = False
    """Write COCO's results: OUT/coco.json."""
    save_crops: Flag = False
    """Write every object as a picture: OUT/crops/LABEL/NAME-NUMBER.png."""
    save_parquet: Flag = False
    """Write the rows of --jsonl as Parquet, in parts: OUT/parquet/part-00001.parquet."""
    save_mot: Flag = False
    """Write the tracks of each video as MOTChallenge has them: OUT/mot/NAME.txt; needs --track."""
    save_format: Literal["png", "jpg", "webp", "tiff", "bmp"] | None = None
    """What annotated pictures are written as (default: like the source)."""
    resume: Flag = False
    """Go on with the job in --out that was stopped; each source is done once."""
    labels: Literal["auto", "on", "off"] = "auto"
    """Captions in annotated pictures; auto leaves out those that would bury an object."""
    colour: Annotated[Literal["class", "instance"], Parameter(name=("--colour", "--color"))] = (
        "class"
    )
    """What has a colour of its own: every class, or every object (followed ones by their track)."""
    line_width: int | None = None
    """Pixels of the boxes' lines (default: by the picture's size, thinner for small objects)."""

    @property
    def into_folder(self) -> bool:
        """Whether anything of it needs the folder."""
        lists = self.save_txt or self.save_csv or self.save_coco or self.save_parquet
        return lists or self.save_crops or self.save_mot

    def check(self, out: Path | None, *, track: bool, as_json: bool) -> None:
        """Raise `VovnetError` for options that do not go together."""
        if self.save_mot and not track:
            raise VovnetError("--save-mot: needs tracks; add --track")
        if self.resume and out is None:
            raise VovnetError("--resume: give the job's folder, --out runs/predict/NAME")
        if self.jsonl == "-" and as_json:
            raise VovnetError("--jsonl -: writes to standard output like --json; give one of them")
        if self.line_width is not None and self.line_width < 1:
            raise VovnetError(f"--line-width {self.line_width}: must be at least 1")

    def check_for_ray(self, save: bool | None) -> None:
        """Raise `VovnetError` for what workers do not write."""
        wanted = {
            "--save": save,
            "--jsonl": self.jsonl,
            "--save-txt": self.save_txt,
            "--save-csv": self.save_csv,
            "--save-coco": self.save_coco,
            "--save-crops": self.save_crops,
            "--save-mot": self.save_mot,
        }
        for name in (name for name, given in wanted.items() if given):
            raise VovnetError(
                f"--engine ray: writes rows only, as JSON lines or --save-parquet; leave out {name}"
            )

    def outputs(
        self, folder: Path | None, shard: "Shard | None", *, save: bool, overwrite: bool
    ) -> "Outputs":
        """What a job writes into its folder; a shard's file of lines has its number."""
        from vovnet.predict.plan import Outputs

        jsonl = self.jsonl
        return Outputs(
            out=folder,
            drawn=save,
            jsonl=jsonl if shard is None or jsonl is None else shard.file(jsonl),
            txt=self.save_txt,
            csv=self.save_csv,
            coco=self.save_coco,
            crops=self.save_crops,
            parquet=self.save_parquet,
            mot=self.save_mot,
            overwrite=overwrite,
            resume=self.resume,
            labels=self.labels,
            line_width=self.line_width,
            colour=self.colour,
            format=self.save_format,
        )


def job_facts(choice: Choice, shown: Shown, reads: Reads, writes: Writes, save: bool) -> Any:
    """The options that decide on results, by name: a job is resumed with the same ones."""
    facts = {f"--{name}": value for name, value in vars(choice).items() if name != "config"}
    facts |= {f"--{name}": value for name, value in vars(shown).items()}
    facts |= {"--every": reads.every, "--save": save, "--tile": reads.tile}
    facts |= {
        "--engine": reads.engine,
        "--overlap": reads.overlap,
        "--track": reads.track,
        "--count-line": reads.count_line,
    }
    facts |= {f"--{name}": value for name, value in vars(writes).items() if name != "resume"}
    return tuple((name.replace("_", "-"), value) for name, value in facts.items())
