"""Jobs of `vovnet predict`: what is taken, what is written, and what a kill leaves."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import vovnet
from vovnet.cli._progress import progress_line
from vovnet.predict.appending import AppendFile, whole_lines
from vovnet.predict.journal import Journal
from vovnet.predict.row import Row, told
from vovnet.predict.sources import JOURNAL


@pytest.fixture
def folder(tmp_path, pan) -> Path:
    """Two pictures, and one in a folder within."""
    (tmp_path / "in/deep").mkdir(parents=True)
    for name, frame in zip(("a.png", "b.jpg", "deep/a.png"), pan, strict=False):
        frame.save(tmp_path / "in" / name)
    return tmp_path / "in"


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_folders_in_folders(run, folder):
    rows = json.loads(run("predict", "in", "--recursive", "--out", "in/out", "--json").out)
    assert [row["path"] for row in rows] == ["in/a.png", "in/b.jpg", "in/deep/a.png"]
    assert [row["annotated"] for row in rows] == [
        f"in/out/{n}" for n in ("a.png", "b.jpg", "a-2.png")
    ]
    again = json.loads(run("predict", "in", "--recursive", "--no-save", "--json").out)
    assert [row["path"] for row in again] == [row["path"] for row in rows]  # not its own


def test_a_list_of_paths(run, folder, tmp_path):
    (folder / "list.txt").write_text("\ufeffa.png\r\n\nin/b.jpg\nnowhere.png\n")
    outcome = run("predict", "in/list.txt", "--no-save", "--json")
    assert outcome.code == 3
    rows = json.loads(outcome.out)
    assert [row["path"] for row in rows] == ["in/a.png", "in/b.jpg", "nowhere.png"]
    assert "no such file" in rows[2]["error"]
    (folder / "empty.txt").write_text("\n")
    assert "in/empty.txt: lists nothing" in run("predict", "in/empty.txt", "--no-save").err


def test_standard_input_is_answered_line_by_line(folder, tmp_path, start):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with start(tmp_path, "-", "--no-save", "--jsonl", "-", "--batch", 3, **pipes) as process:
        for name in ("in/a.png", "in/none.png", "in/a.png"):
            print(name, file=process.stdin, flush=True)
            row = json.loads(process.stdout.readline())  # before the next is named
            assert row["path"] == name
            assert ("error" in row) == (name == "in/none.png")
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 3


def test_what_another_wrote_is_never_replaced(refused, run, folder, tmp_path):
    (tmp_path / "out/labels").mkdir(parents=True)
    for name, option in (
        ("out/labels/a.txt", "--save-txt"),
        ("out/detections.csv", "--save-csv"),
        ("out/coco.json", "--save-coco"),
        ("out/b.jpg", "--save"),
    ):
        (tmp_path / name).write_text("mine")
        line = refused("predict", "in", "--out", "out", option)
        assert f"{name} is there already" in line
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "rows.jsonl").write_text("mine")
    line = refused("predict", "in", "--no-save", "--jsonl", "rows.jsonl")
    assert line == (
        "vovnet: --jsonl rows.jsonl: rows.jsonl is there already; "
        "give another name, or --overwrite to replace it"
    )
    assert "is an input itself" in refused(
        "predict", "in/a.png", "--no-save", "--jsonl", "in/a.png", "--overwrite"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels"]
    assert "--overwrite: might replace what standard input is yet to name" in refused(
        "predict", "-", "--out", "in", "--overwrite"
    )


def test_what_comes_while_it_runs_is_not_replaced_either(start, folder, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(tmp_path, "-", "--out", "out", "--jsonl", "-", **pipes) as process:
        print("in/a.png", file=process.stdin, flush=True)
        assert json.loads(process.stdout.readline())["annotated"] == "out/a.png"
        (tmp_path / "out/b.jpg").write_text("another's")
        print("in/b.jpg", file=process.stdin, flush=True)
        row = json.loads(process.stdout.readline())
        assert "out/b.jpg: cannot write: File exists" in row["error"]
        assert row["detections"]
        process.communicate(timeout=20)
    assert (tmp_path / "out/b.jpg").read_text() == "another's"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_stops_the_job(run, folder, tmp_path):
    outcome = run("predict", "in", "--no-save", "--jsonl", "/dev/full", "--overwrite")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        "vovnet: /dev/full: cannot write: No space left on device"
    )


def test_resume_needs_its_folder_and_the_same_options(refused, run, folder):
    assert "--resume: give the job's folder" in refused("predict", "in", "--resume")
    assert run("predict", "in", "--out", "out").code == 0
    line = refused("predict", "in", "--out", "out", "--resume", "--conf", 0.4)
    assert "--resume: out was made with --conf 0.25, not 0.4; give the same options" in line
    done = run("predict", "in", "--out", "out", "--resume")
    assert (done.code, done.out) == (0, "")  # nothing is left to do


KINDS = ("--save-txt", "--save-csv", "--save-coco", "--save-crops", "--jsonl", "out/rows.jsonl")


def same(one: Path, other: Path) -> None:
    """Asserts that two folders of results are alike, byte for byte but for where they lie."""
    files = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in (one, other)]
    assert files[0] == files[1]
    for name in files[0]:
        if name.name != JOURNAL:
            left, right = ((folder / name).read_bytes() for folder in (one, other))
            assert left.replace(one.name.encode(), other.name.encode()) == right, name


def interrupt(start: Callable, cwd: Path, how: int, lines: int, *arguments: object) -> None:
    """Start a job and end it by a signal when it has written so many rows."""
    process = start(cwd, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = cwd / "out/rows.jsonl"
    until = time.monotonic() + 60
    while not rows.exists() or rows.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(how)
    process.wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_job_goes_on_after_kills_as_if_there_had_been_none(run, start, pan, tmp_path, video, how):
    """Twice killed, then resumed: the same files as of one run, pictures, frames and all."""
    (tmp_path / "in").mkdir()
    for i in range(60):
        pan[i % 11].save(tmp_path / "in" / f"{i:02}.png")
    (tmp_path / "in/07.png").write_text("no picture")
    job = ("in", "pan.mp4", "--out", "out", *KINDS)
    for lines in (5, 30, 64):
        interrupt(start, tmp_path, how, lines, *job, "--resume")
    assert run("predict", *job, "--resume").code in (0, 3)
    rows = lines_of(tmp_path / "out/rows.jsonl")
    counts = Counter((row["path"], row.get("frame")) for row in rows)
    assert len(rows) == 71
    assert set(counts.values()) == {1}
    assert (
        run("predict", "in", "pan.mp4", "--out", "once", *KINDS[:-1], "once/rows.jsonl").code == 3
    )
    same(tmp_path / "out", tmp_path / "once")


def test_a_job_that_is_killed_goes_on(run, start, folder, tmp_path, pan):
    for i in range(4, 30):
        pan[i % 11].save(folder / f"{i:02}.png")
    job = ("in", "--no-save", "--out", "out", "--save-coco", "--jsonl", "out/rows.jsonl")
    interrupt(start, tmp_path, signal.SIGKILL, 4, *job)
    line = run("predict", "in/a.png", "--out", "out").err
    assert "--out out: holds a job that was stopped; --resume goes on" in line
    before = (tmp_path / "out/rows.jsonl").read_bytes().count(b"\n")
    outcome = run("predict", *job, "--resume")
    assert outcome.code == 0
    assert 4 <= before < 28
    rows = lines_of(tmp_path / "out/rows.jsonl")
    assert Counter(row["path"] for row in rows) == {
        str(path.relative_to(tmp_path)): 1 for path in folder.glob("*.*")
    }
    assert len(json.loads((tmp_path / "out/coco.json").read_text())) == sum(
        len(row["detections"]) for row in rows
    )
    assert not list((tmp_path / "out").rglob(".*.part"))


def test_frames_of_a_video_go_on_where_they_stopped(run, video, tmp_path):
    """Without an annotated video every frame stands for itself."""
    job = ("predict", "pan.mp4", "--no-save", "--out", "out", "--jsonl", "out/rows.jsonl")
    assert run(*job).code == 0
    whole = (tmp_path / "out/rows.jsonl").read_bytes()
    journal = (tmp_path / "out" / JOURNAL).read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(journal) if json.loads(line).get("frame") == 5)
    (tmp_path / "out" / JOURNAL).write_bytes(b"".join(journal[: cut + 1]) + b'{"fra')
    assert run(*job, "--resume").code == 0
    assert (tmp_path / "out/rows.jsonl").read_bytes() == whole
    (tmp_path / "out" / JOURNAL).write_bytes(b"".join(journal[: cut + 1]))
    (tmp_path / "out/rows.jsonl").write_bytes(whole[:900])  # the power failed
    assert run(*job, "--resume").code == 0
    assert (tmp_path / "out/rows.jsonl").read_bytes() == whole


def test_a_growing_file_is_cut_to_what_is_complete(tmp_path):
    path = tmp_path / "a.json"
    file = AppendFile(path, "[\n", "]\n")
    file.write(" 1\n")
    mark = file.size()
    file.write(",2")
    assert whole_lines(path) == mark == 5
    file.close()
    again = AppendFile(path, "[\n", "]\n", mark=mark)
    assert not again.empty
    again.write(",3\n")
    again.close()
    assert json.loads(path.read_text()) == [1, 3]
    ended = AppendFile(path, "[\n", "]\n", mark=whole_lines(path))
    ended.write(",4\n")
    ended.close()
    assert json.loads(path.read_text()) == [1, 3, 4]


def test_a_source_named_twice_is_done_twice_and_once_each(tmp_path):
    journal = Journal(tmp_path, {}, resume=False)
    for name in ("a", "b", "a"):
        journal.begin(name, [])
        journal.finish([(name, None)], {})
    journal.close(keep=True)
    again = Journal(tmp_path, {}, resume=True)
    done = [again.done(name) for name in ("a", "a", "a", "b", "c")]
    again.close(keep=True)
    assert done == [True, True, False, True, False]


@pytest.mark.slow
def test_rows_are_not_collected(tmp_path):
    """Of 400 more pictures with 300 objects each, which take some 100 MB as rows, nothing stays."""
    Image.effect_noise((64, 64), 80).save(tmp_path / "a.png")
    peaks = []
    for count in (40, 440):
        code = (
            "import sys, resource; from vovnet.__main__ import main; main(); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        options = ("--no-save", "--json", "--conf", "0", "--iou", "1")
        command = [sys.executable, "-c", code, "predict", "-", *options]
        environment = os.environ | {"PYTHONPATH": str(Path(vovnet.__file__).parents[1])}
        done = subprocess.run(
            command, input=b"a.png\n" * count, cwd=tmp_path, env=environment, capture_output=True
        )
        assert done.stdout.count(b"\n") == count
        assert len(json.loads(done.stdout.splitlines()[0])["detections"]) == 300
        peaks.append(int(done.stderr.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 20_000


def test_progress_tells_rate_and_what_is_left():
    assert progress_line(30, 120, 10.0) == "30/120  3.0/s  30 s left"
    assert progress_line(30, 12000, 10.0) == "30/12000  3.0/s  1.1 h left"
    assert progress_line(30, None, 10.0) == "30  3.0/s"


def test_progress_is_for_terminals_only(start, folder, tmp_path):
    master, slave = pty.openpty()
    with start(tmp_path, "in", "--no-save", stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        assert process.stdout.read().startswith("in/a.png: ")
        shown = os.read(master, 65536)
        os.close(master)
    assert b"\r\x1b[K" in shown


def test_a_job_that_found_nothing_to_do_goes_on_too(start, folder, tmp_path):
    job = ("-", "--no-save", "--out", "out", "--save-csv")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    start(tmp_path, *job, **pipes).communicate("", timeout=60)
    again = start(tmp_path, *job, "--resume", **pipes)
    assert again.communicate("in/a.png\n", timeout=60)[1] == ""
    table = (tmp_path / "out/detections.csv").read_text().splitlines()
    assert table[0].startswith("path,")
    assert table[1].startswith("in/a.png,,,cat,")


def test_passwords_are_not_told():
    assert told("rtsp://me:secret@host/a:b@c") == "rtsp://me:***@host/a:b@c"
    assert told("http://host/a@b:c@d") == "http://host/a@b:c@d"
    assert told(Path("a:b@c")) == "a:b@c"
    row = Row("http://me:secret@host/x.jpg", None, "why")
    assert row.to_dict()["path"] == "http://me:***@host/x.jpg"
