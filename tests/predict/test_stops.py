"""Jobs that are stopped, live ones above all: nothing that was written is lost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vovnet.detect.pictures import Picture
from vovnet.detections import Detections
from vovnet.predict import parts
from vovnet.predict.job import Job, Taking, open_job
from vovnet.predict.journal import Journal
from vovnet.predict.plan import Outputs
from vovnet.predict.sources import JOURNAL, Files, Sources

parquet = pytest.importorskip("pyarrow.parquet")

EACH = Taking(keep_all=True)


def look(pictures: list[Picture]) -> list[Detections]:
    """Finds nothing."""
    boxes = np.zeros((0, 4))
    return [Detections(boxes, [], [], ("cat",), image_size=picture.size) for picture in pictures]


@contextmanager
def stopped_after(
    rows: int, files: list[Path], live: list[str], outputs: Outputs, taking: Taking = EACH
) -> Iterator[Job]:
    """A job that is stopped when so many rows are written; a file is watched as a live source."""
    with open_job(Sources(Files(files), {}, {}, live), outputs, taking) as job:
        coming = job.rows(look, None)
        for _ in range(rows):
            next(coming)
        yield job


def rows_in(out: Path) -> list[dict]:
    paths = sorted((out / "parquet").glob("*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


@pytest.mark.parametrize("taking", [EACH, replace(EACH, track_from=0.25)])
@pytest.mark.parametrize("drawn", [False, True])
def test_rows_of_a_live_source_are_kept(tmp_path, video, drawn, taking):
    outputs = Outputs(tmp_path / "out", drawn=drawn, parquet=True)
    with stopped_after(5, [], [str(video)], outputs, taking):
        assert not rows_in(outputs.out)  # the part is open
    assert [row["frame"] for row in rows_in(outputs.out)] == [0, 1, 2, 3, 4]


def test_a_job_that_is_stopped_notes_its_part_and_its_growing_files(tmp_path, pan):
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in pictures:
        pan[0].save(path)
    outputs = Outputs(tmp_path / "out", drawn=False, parquet=True, csv=True, resume=True)
    with stopped_after(1, pictures, [], outputs):
        """Stopped here."""
    with stopped_after(1, pictures, [], outputs) as again:
        assert again.skipped == 1
    assert [Path(row["path"]).name for row in rows_in(outputs.out)] == ["a.png", "b.png"]


def test_live_rows_behind_pictures_are_kept_when_it_goes_on(tmp_path, video, pan, monkeypatch):
    monkeypatch.setattr(parts, "_ROWS", 3)
    pan[0].save(tmp_path / "a.png")
    outputs = Outputs(tmp_path / "out", drawn=False, parquet=True, resume=True)
    job = ([tmp_path / "a.png"], [str(video)], outputs)
    with stopped_after(9, *job):
        """Stopped here."""
    with stopped_after(2, *job) as again:
        assert again.skipped == 1
    rows = rows_in(outputs.out)
    assert [row["frame"] for row in rows] == [None, *range(8), *range(2)]


def test_a_journal_that_was_live_stays_so(tmp_path):
    journal = Journal(tmp_path, {}, resume=False)
    journal.live()
    journal.finish([("a.png", None)], {})
    journal.close(keep=True)
    again = Journal(tmp_path, {}, resume=True)
    again.close(keep=True)
    assert again.kept(tmp_path / "parquet") is None  # every part


def test_the_folder_may_be_spelled_otherwise(tmp_path, pan, monkeypatch):
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    for path in pictures:
        pan[0].save(path)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "deep").mkdir()
    for folder, out in ((".", "out"), (".", "link/out"), ("deep", "../out")):
        monkeypatch.chdir(tmp_path / folder)
        outputs = Outputs(Path(out), drawn=False, parquet=True, csv=True, resume=True)
        with stopped_after(1, pictures, [], outputs):
            """Stopped here."""
    rows = rows_in(tmp_path / "out")
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]


def test_an_older_journal_tells_paths_as_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part, rows = Path("out/parquet/part-00001.parquet"), Path("out/rows.jsonl")
    part.parent.mkdir(parents=True)
    part.write_text("part")
    rows.write_text("row\n")
    marks = {str(part): 4, str(rows): 4}
    begun = {"begin": "b.png", "files": ["out/b.png"]}
    lines = [{"job": {}}, {"done": "a.png", "count": 1, "marks": marks}, begun]
    (tmp_path / "out" / JOURNAL).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for out in (Path("out"), tmp_path / "out"):
        journal = Journal(out, {}, resume=True)
        journal.close(keep=True)
        assert journal.kept(out / "parquet") == {out / "parquet" / part.name}
        assert journal.mark(out / "rows.jsonl") == 4
        assert journal.owns(out / "b.png")
        assert not journal.owns(out / "a.png")
