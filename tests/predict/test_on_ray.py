"""Jobs on Ray: two workers on this machine, of which one is killed; and what is settled without."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import vovnet
from vovnet.errors import VovnetError
from vovnet.predict.job import Taking
from vovnet.predict.on_ray import Work, _journal, _left, _named, blocks_of
from vovnet.predict.parts import JsonPart, ParquetPart, part_path
from vovnet.predict.row import Row
from vovnet.predict.shards import Shard
from vovnet.predict.sources import JOURNAL, STDIN

pytest.importorskip("ray.data")

COUNT = 2_000


@pytest.fixture
def quiet_ray(monkeypatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def tiny(tmp_path, pan) -> Path:
    """Two thousand pictures of 24 pixels, and one that is none."""
    (tmp_path / "in").mkdir()
    for i in range(COUNT - 1):
        pan[i % 11].resize((24, 24)).save(tmp_path / "in" / f"{i:04}.jpg")
    (tmp_path / "in/bad.jpg").write_text("no picture")
    return tmp_path / "in"


def parents() -> Iterator[tuple[int, int, str]]:
    """Every process with its parent and what it calls itself."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            yield int(folder.name), parent, (folder / "cmdline").read_bytes().decode()


def workers_of(driver: int) -> list[int]:
    """The workers that descend from a driver."""
    every = list(parents())
    above = {pid: parent for pid, parent, _ in every}

    def is_below(pid: int) -> bool:
        while pid in above and pid != driver:
            pid = above[pid]
        return pid == driver

    return [pid for pid, _, name in every if name.startswith("ray::Map") and is_below(pid)]


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)


def paths_in(folder: Path) -> Counter[str]:
    """The pictures of all parts."""
    texts = [path.read_text() for path in folder.glob("part-*.jsonl")]
    return Counter(json.loads(line)["path"] for text in texts for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc here")
def test_a_worker_and_then_the_driver_are_killed(start, quiet_ray, tiny, tmp_path):
    """Every picture once: a worker is killed in the middle, then all is, and goes on."""
    job = ("in", "--engine", "ray", "--workers", 2, "--out", "out", "--json")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(tmp_path, *job, **pipes)
    out = tmp_path / "out"
    wait_for(lambda: len(list(out.glob("part-*.jsonl"))) >= 3, process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    said, complaints = process.communicate(timeout=600)
    assert process.returncode == 3, complaints
    told = json.loads(said)
    assert (told["rows"], told["failed"], told["lost"]) == (COUNT, 1, 0)
    bad, lost = complaints.splitlines()
    assert bad.startswith("vovnet: in/bad.jpg: not a readable picture")
    assert lost == "vovnet: --engine ray: 1 workers were lost, and replaced"
    expected = Counter(f"in/{path.name}" for path in tiny.iterdir())
    assert paths_in(out) == expected
    assert not list(out.glob(".part-*"))

    for path in sorted(out.glob("part-*.jsonl"))[5:]:  # as if it had been stopped
        path.unlink()
    again = start(tmp_path, *job, "--resume", **pipes)
    wait_for(lambda: len(list(out.glob("part-*.jsonl"))) >= 8, again)
    again.kill()
    again.wait(60)
    last = start(tmp_path, *job, "--resume", **pipes)
    told = json.loads(last.communicate(timeout=600)[0])
    assert told["skipped"] >= 8 * COUNT // 32 - 32
    assert paths_in(out) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_videos_in_parquet_on_ray_are_those_of_predict(
    start, run, refused, quiet_ray, pan, video, tmp_path
):
    parquet = pytest.importorskip("pyarrow.parquet")
    pan[0].save(tmp_path / "a.png")
    job = ("pan.mp4", "a.png", "none.png", "--track", "--save-parquet")
    on_ray = (*job, "--engine", "ray", "--workers", 2, "--out", "ray")
    process = start(tmp_path, *on_ray, stderr=subprocess.PIPE)
    said = process.communicate(timeout=300)[1]
    assert (process.returncode, said) == (3, "vovnet: none.png: no such file; check the path\n")
    assert run("predict", *job, "--no-save", "--out", "plain").code == 3
    tables = ([*(tmp_path / name).glob("*.parquet")] for name in ("ray", "plain/parquet"))
    rows = [
        [row for path in paths for row in parquet.read_table(path).to_pylist()] for paths in tables
    ]
    assert Counter(map(str, rows[0])) == Counter(map(str, rows[1]))
    assert len(rows[0]) == 13
    done = run("predict", *on_ray, "--resume")  # nothing is left, and Ray is not started
    assert (done.code, done.out) == (0, "ray: 0 pictures and frames, 0 of them failed\n")
    assert "ray/part-00001.parquet (and 2 more) is there already" in refused("predict", *on_ray)


def test_blocks_are_of_like_work():
    files = [Path(f"{i}.jpg") for i in range(100)] + [Path("a.mp4"), "http://host/b.jpg"]
    blocks = blocks_of(files, workers=2)
    assert blocks[0] == [Path("a.mp4")]
    assert {len(block) for block in blocks[1:-1]} == {4}
    assert Counter(given for block in blocks for given in block) == Counter(files)
    assert max(map(len, blocks_of([Path("a.jpg")] * 100_000, 2))) == 1_000
    assert blocks_of([], 2) == []


@pytest.mark.parametrize("kind", [JsonPart, ParquetPart])
def test_what_is_done_is_what_is_in_a_part(tmp_path, kind):
    odd = Path(os.fsdecode(b"caf\xe9.png"))
    part = kind(tmp_path / f"part-00001{kind.suffix}")
    for row in (
        *(Row(Path("a.mp4"), None, "why", frame=i, time=0.0) for i in range(3)),
        Row(Path("a.mp4"), None, "damaged"),
        *(Row(path, None, "why") for path in (Path("b.png"), odd)),
    ):
        part.add(row)
    part.close()
    files = [Path("b.png"), Path("c.png"), Path("a.mp4"), odd, Path("b.png")]
    left = _left(files, [part.path], kind.suffix)
    assert left == [Path("c.png"), Path("b.png")]


def test_lines_of_standard_input_are_shared_out():
    names = [Path(f"{i}.png") for i in range(20)]
    taken = []
    for number in (1, 2, 3):
        read, write = os.pipe()
        os.write(write, "".join(f"{name}\n" for name in names).encode())
        os.close(write)
        before = os.dup(0)
        os.dup2(read, 0)
        taken.append(list(_named([STDIN], Shard(number, 3))))
        os.dup2(before, 0)
        for descriptor in (read, before):
            os.close(descriptor)
    assert all(taken)
    assert Counter(name for part in taken for name in part) == Counter(names)


@pytest.mark.parametrize("parts", [0, 1])
def test_a_start_that_failed_is_no_stopped_job(tmp_path, parts):
    work = Work(lambda threads: (lambda pictures: [], None), Taking(), tmp_path)

    def fail() -> None:
        with _journal(work, resume=False, overwrite=False):
            for number in range(parts):
                part = JsonPart(part_path(tmp_path, number + 1, JsonPart.suffix))
                part.add(Row(Path("a.png"), None, "why"))
                part.close()
            raise VovnetError("cannot reach Ray")

    with pytest.raises(VovnetError, match="cannot reach Ray"):
        fail()
    assert (tmp_path / JOURNAL).exists() == bool(parts)


def test_what_ray_does_not_do(refused, pan, tmp_path):
    pan[0].save(tmp_path / "a.png")
    for option in ("--save", "--save-csv", "--save-crops"):
        line = refused("predict", "a.png", "--engine", "ray", "--out", "out", option)
        assert f"writes rows only, as JSON lines or --save-parquet; leave out {option}" in line


DEADLY = """
import os, signal, sys
from pathlib import Path
import numpy as np
from vovnet.detections import Detections
from vovnet.predict import find_sources
from vovnet.predict.job import Taking
from vovnet.predict.on_ray import Work, run_on_ray

broken = "broken" in sys.argv

def tell(line):
    print(line, file=sys.stderr)

def opened(threads):
    def look(pictures):
        for picture in pictures:
            if picture.size == (9, 9):
                os.kill(os.getpid(), signal.SIGKILL)  # as a decoder's bug, or the system for memory
        if broken:
            raise AttributeError("a bug of ours")
        return [Detections(np.zeros((0, 4)), [], [], ("cat",)) for _ in pictures]
    return look, None

work = Work(opened, Taking(), Path("out"), workers=1)
done = run_on_ray(find_sources(["in"]), work, resume=False, overwrite=False, tell=tell)
print(vars(done))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_picture_that_kills_its_worker_hinders_no_other(quiet_ray, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(20):
        Image.new("RGB", (9, 9) if i == 7 else (8, 8)).save(tmp_path / "in" / f"{i:02}.png")
    environment = os.environ | {"PYTHONPATH": str(Path(vovnet.__file__).parents[1])}
    command = [sys.executable, "-c", DEADLY]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [sums] = done.stdout.splitlines()
    lost = done.stderr.splitlines()[-1]
    assert lost == "--engine ray: 2 sources lost their workers; --resume tries again"
    assert sums == "{'rows': 18, 'failed': 0, 'skipped': 0, 'lost': 2}"
    assert len(paths_in(tmp_path / "out")) == 18
    last = (tmp_path / "out/.predict.jsonl").read_text().splitlines()[-1]
    assert "end" not in json.loads(last)  # so that --resume is offered


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_bug_is_no_lost_worker(quiet_ray, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in/a.png")
    environment = os.environ | {"PYTHONPATH": str(Path(vovnet.__file__).parents[1])}
    command = [sys.executable, "-c", DEADLY, "broken"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "AttributeError: a bug of ours" in done.stderr
    assert not list((tmp_path / "out").glob("*part*"))
