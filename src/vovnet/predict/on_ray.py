"""A job of `vovnet predict` on Ray Data: blocks of sources for workers anywhere, a part for each.

A part is written aside and takes its name when it is complete, so what is done is what is in a
part, whoever was lost meanwhile. Every worker sees the same files as the driver.
"""

import json
import logging
import os
import socket
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.files import refuse_replacing
from vovnet.limits import usable_cores
from vovnet.predict.frames import STDIN, read_names
from vovnet.predict.job import Taking, open_job
from vovnet.predict.journal import Journal
from vovnet.predict.kinds import Kind, kind_of
from vovnet.predict.parts import JsonPart, ParquetPart, part_number, part_path, parts_in, plain
from vovnet.predict.plan import Outputs
from vovnet.predict.row import Given, told
from vovnet.predict.shards import Shard
from vovnet.predict.sources import Sources
from vovnet.predict.stream import Look

_STORE = 100_000_000  # bytes of a local object store: only names and counts go through it
_BLOCKS, _LARGEST = 16, 1_000  # blocks for each worker, but of at most so many sources
_TRIES = 3  # times that a block is begun again whose worker was lost
_TOLD = 5  # errors of a block that are told
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # else whatever else runs here goes before the workers
}
_PARTS = {part.suffix: part for part in (JsonPart, ParquetPart)}


@dataclass(frozen=True)
class Work:
    """What every worker is told: how to open the detector, given the threads that it may use; how
    to take the sources; where the parts go, and the folder that names are relative to."""

    opened: Callable[[int], tuple[Look, int | None]]
    taking: Taking
    out: Path
    suffix: str = JsonPart.suffix
    device: str = "cpu"
    workers: int | None = None


class Worker:
    """A detector in a process of Ray's; does one block after the other."""

    def __init__(self, work: Work, threads: int, folder: str) -> None:
        self._work, self._threads, self._folder = work, threads, folder
        self._opened: tuple[Look, int | None] | None = None

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Write the part of a block; what came of it."""
        files = [_given(kind, name) for kind, name in json.loads(block["sources"])]
        said = {"number": block["number"], "rows": 0, "failed": 0, "errors": [], "fatal": ""}
        said |= {"bug": "", "worker": f"{socket.gethostname()} {os.getpid()}"}
        try:
            return said | self._write(block["number"], Sources(files, {}, {}, []))
        except VovnetError as error:  # a full disk, weights that are not here: all would fail
            return said | {"fatal": str(error)}
        except Exception:  # Ray would count it as a lost worker
            return said | {"bug": traceback.format_exc()}

    def _write(self, number: int, sources: Sources) -> dict[str, Any]:
        work = self._work
        if self._opened is None:
            os.chdir(self._folder)  # names are the driver's
            self._opened = work.opened(self._threads)
        failed, errors = 0, []
        part = _PARTS[work.suffix](part_path(work.out, number, work.suffix))
        try:
            with open_job(sources, Outputs(), work.taking) as job:
                for row in job.rows(*self._opened):
                    part.add(row)
                    if row.error is not None:
                        failed, errors = failed + 1, [*errors, row.error][:_TOLD]
            part.close()
        except BaseException:
            part.drop()
            raise
        return {"rows": part.count, "failed": failed, "errors": errors}


@dataclass
class Outcome:
    """Pictures and frames that were done, and that failed, by a job on Ray."""

    rows: int = 0
    failed: int = 0
    skipped: int = 0  # sources that an earlier run has done
    lost: int = 0  # sources whose worker was lost each time


def run_on_ray(
    found: Sources, work: Work, *, resume: bool, overwrite: bool, tell: Callable[[str], None]
) -> Outcome:
    """Do all sources on a Ray cluster, the one at RAY_ADDRESS or one on this machine for the time;
    `tell` is told what fails, and may write to standard error. Raises `VovnetError` for what stops
    all of it."""
    if found.live:
        raise VovnetError(f"--engine ray: cannot watch {told(found.live[0])}; it has no end")
    outcome = Outcome()
    files = list(_named(found.files, work.taking.shard))
    with _journal(work, resume=resume, overwrite=overwrite) as journal:
        before = parts_in(work.out, work.suffix)
        left = _left(files, before, work.suffix)
        outcome.skipped = len(files) - len(left)
        if left:
            with _connected() as ray:
                _do(ray, left, 1 + max([0, *map(part_number, before)]), work, outcome, tell)
        if outcome.lost:
            tell(f"--engine ray: {outcome.lost} sources lost their workers; --resume tries again")
        else:
            journal.end()
        _sweep(work.out)
    return outcome


def _do(
    ray: ModuleType,
    left: list[Given],
    first: int,
    work: Work,
    outcome: Outcome,
    tell: Callable[[str], None],
) -> None:
    """Have the sources done, in parts from number `first` on."""
    workers, each = _share(ray, work)
    blocks = blocks_of(left, workers)
    waiting = {first + index: len(block) for index, block in enumerate(blocks)}
    seen: set[str] = set()
    for said in _results(ray, work, blocks, first, workers, each):
        if said["bug"]:
            raise RuntimeError(said["bug"])
        if said["fatal"]:
            raise VovnetError(f"{said['fatal']}; --resume goes on")
        waiting.pop(said["number"], None)
        seen.add(said["worker"])
        outcome.rows += said["rows"]
        outcome.failed += said["failed"]
        for error in said["errors"]:
            tell(error)
    if len(seen) > workers:
        tell(f"--engine ray: {len(seen) - workers} workers were lost, and replaced")
    outcome.lost = sum(waiting.values())


def blocks_of(files: Sequence[Given], workers: int) -> list[list[Given]]:
    """The sources in blocks of like work: some pictures, or one video."""
    size = max(1, min(_LARGEST, -(-len(files) // (workers * _BLOCKS))))
    videos = [[given] for given in files if kind_of(given) is Kind.VIDEO]
    pictures = [given for given in files if kind_of(given) is not Kind.VIDEO]
    return videos + [pictures[i : i + size] for i in range(0, len(pictures), size)]


def _named(files: Iterable[Given], shard: Shard | None) -> Iterator[Given]:
    """The sources, those that standard input names among them, of which a shard has its own."""
    for given in files:
        if given == STDIN:
            yield from read_names(0) if shard is None else filter(shard.has, read_names(0))
        else:
            yield given


def _left(files: list[Given], parts: list[Path], suffix: str) -> list[Given]:
    """The sources that are in no part; of one that is named twice, each once."""
    done: Counter[str] = Counter()
    for path in parts:
        done.update(_sources_of(path, suffix))
    left = []
    for given in files:
        name = plain(told(given)) if suffix == ParquetPart.suffix else told(given)
        if done[name]:
            done[name] -= 1
        else:
            left.append(given)
    return left


def _sources_of(path: Path, suffix: str) -> list[str]:
    """The sources of a part, a video once and not for each frame."""
    if suffix == ParquetPart.suffix:
        from pyarrow.parquet import read_table

        columns = read_table(path, columns=["path", "frame"]).to_pydict()
        rows = zip(columns["path"], columns["frame"], strict=True)
    else:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            lines = [json.loads(line) for line in file]
        rows = ((line["path"], line.get("frame")) for line in lines)
    videos: dict[str, None] = {}
    names = []
    for name, frame in rows:
        if frame is None and name not in videos:
            names.append(name)
        elif frame is not None:
            videos[name] = None
    return [*names, *videos]


@contextmanager
def _journal(work: Work, *, resume: bool, overwrite: bool) -> Iterator[Journal]:
    """The job's journal, which holds its options; parts of others are not touched."""
    facts = dict(work.taking.facts)
    journal = Journal(work.out, facts, resume=resume, overwrite=overwrite)
    try:
        if not journal.resumed:
            there = [path for suffix in _PARTS for path in parts_in(work.out, suffix)]
            refuse_replacing(f"--out {work.out}", there, overwrite=overwrite)
            for path in there:
                path.unlink()
        _sweep(work.out)
    except VovnetError:
        journal.close(keep=False)
        raise
    try:
        yield journal
    finally:
        journal.close(keep=bool(parts_in(work.out, work.suffix)))


def _sweep(out: Path) -> None:
    """Take away what workers that were killed left."""
    for path in out.glob(".part-*.part"):
        path.unlink(missing_ok=True)


@contextmanager
def _connected() -> Iterator[ModuleType]:
    """Ray, connected and quiet; what was started for this job is ended with it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", "ray", "--engine ray") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a block that kills each of its workers hinders no other
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        how |= {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
        how |= {"object_store_memory": _STORE}
    with _only_our_words():
        try:
            ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise VovnetError(f"--engine ray: cannot start or reach Ray ({error})") from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _only_our_words() -> Iterator[None]:
    """Python's standard error goes where it did; what Ray's own libraries write there, and Ray on
    standard output, is lost, for they tell of every worker that goes. Its logs keep it."""
    before, real = sys.stderr, os.dup(2)
    nothing = open(os.devnull, "w")  # noqa: SIM115
    ours = os.fdopen(real, "w", errors=before.errors or "backslashreplace", buffering=1)
    os.dup2(nothing.fileno(), 2)
    sys.stderr = ours
    try:
        with nothing, redirect_stdout(nothing):
            yield
    finally:
        sys.stderr = before
        with ours:
            ours.flush()
            os.dup2(real, 2)


def _share(ray: ModuleType, work: Work) -> tuple[int, dict[str, float]]:
    """How many workers there are, and what of the cluster each has: a core, or a GPU, unless told
    otherwise."""
    resources = ray.cluster_resources()
    cores, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    if work.device == "cpu":
        workers = work.workers or max(1, int(cores))
        return workers, {"num_cpus": _whole(cores / workers)}
    if not gpus:
        raise VovnetError(f"--device {work.device}: this Ray cluster has no GPU; leave it out")
    workers = work.workers or max(1, int(gpus))
    share = min(1.0, gpus / workers)
    return workers, {"num_gpus": share, "num_cpus": _whole(cores / workers)}


def _whole(share: float) -> float:
    """Ray gives parts of a core, or whole ones."""
    return float(int(share)) if share >= 1 else share


def _results(
    ray: ModuleType,
    work: Work,
    blocks: list[list[Given]],
    first: int,
    workers: int,
    each: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """What came of every block, as each is done."""
    if not blocks:
        return
    items = [
        {"number": first + i, "sources": json.dumps([_told(given) for given in block])}
        for i, block in enumerate(blocks)
    ]
    threads = max(1, int(each["num_cpus"]))
    taking = replace(work.taking, shard=None, facts=())
    plain_work = replace(work, out=work.out.absolute(), taking=taking)
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no newer word for the tries
        dataset = dataset.map(
            Worker,
            fn_constructor_args=(plain_work, threads, os.getcwd()),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(blocks))),
            ray_remote_args_fn=_tries,
            **each,
        )
    yield from dataset.iter_rows()


def _tries() -> dict[str, int]:
    return {"max_task_retries": _TRIES}


def _told(given: Given) -> tuple[str, str]:
    return ("file" if isinstance(given, Path) else "address"), os.fspath(given)


def _given(kind: str, name: str) -> Given:
    return Path(name) if kind == "file" else name
