"""Shards of a job: together they are the job, whatever is shared out."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from vovnet.errors import VovnetError
from vovnet.predict.shards import Shard
from vovnet.predict.sources import find_sources

COUNT = 3


@pytest.fixture
def pictures(tmp_path, pan) -> Path:
    """Seven pictures, two of one name, and a file that is none."""
    (tmp_path / "in/deep").mkdir(parents=True)
    for i, name in enumerate(("a", "b", "c", "d", "e", "deep/a", "deep/f")):
        pan[i].save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in/bad.png").write_text("no picture")
    return tmp_path / "in"


def rows_in(folder: Path, name: str) -> list[dict]:
    texts = [path.read_text() for path in folder.glob(name)]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def bare(row: dict) -> str:
    """A row without where its picture lies, which each job decides."""
    return json.dumps(row | {"annotated": None}, sort_keys=True)


@pytest.mark.slow
def test_shards_are_the_whole_and_each_source_is_in_one(run, pictures, tmp_path):
    sources = ("in", "nowhere*.png", "--recursive", "--save-csv")
    whole = run("predict", *sources, "--out", "once", "--json")
    assert whole.code == 3
    parts = []
    for i in range(1, COUNT + 1):
        shard = ("--shard", f"{i}/{COUNT}", "--out", "out")
        parts += json.loads(run("predict", *sources, *shard, "--json").out or "[]")
    assert Counter(map(bare, parts)) == Counter(map(bare, json.loads(whole.out)))
    drawn = {row["annotated"] for row in parts if row.get("annotated")}
    assert len(drawn) == 7
    assert all((tmp_path / path).is_file() for path in drawn)
    tables = [path.read_text().splitlines() for path in (tmp_path / "out").glob("*/*.csv")]
    together = sorted(line for table in tables for line in table[1:])
    assert together == sorted((tmp_path / "once/detections.csv").read_text().splitlines()[1:])
    again = run("predict", *sources, "--shard", f"1/{COUNT}", "--out", "out", "--resume")
    assert again.out == ""  # nothing is left to do


@pytest.mark.slow
@pytest.mark.parametrize("way", ["list", "standard input", "videos"])
def test_shards_of_lists_and_videos(start, run, pictures, tmp_path, video, way):
    names = [str(path.relative_to(tmp_path)) for path in sorted(pictures.rglob("*.png"))]
    names.append(names[0])  # twice, and so it is done twice
    (tmp_path / "list.txt").write_text("\n".join(names))
    if way == "videos":
        names = [f"{name}.mp4" for name in "abc"]
        for name in names:
            shutil.copy(video, tmp_path / name)
    sources = {"list": ["list.txt"], "standard input": ["-"], "videos": names}[way]
    jobs = {"once.jsonl": ()} | {
        f"rows-{shard}.jsonl": ("--shard", f"{shard.number}/{COUNT}")
        for shard in (Shard(i + 1, COUNT) for i in range(COUNT))
    }
    for i, shard in enumerate(jobs.values()):
        file = ("--no-save", "--jsonl", "rows.jsonl" if i else "once.jsonl")
        with (tmp_path / "list.txt").open() as lines:
            assert start(tmp_path, *sources, *shard, *file, stdin=lines).wait(60) in (0, 3)
    once, parts = rows_in(tmp_path, "once.jsonl"), rows_in(tmp_path, "rows-*.jsonl")
    assert Counter(map(bare, once)) == Counter(map(bare, parts))
    expected = {"list": len(names) - 1, "standard input": len(names), "videos": 33}[way]
    assert len(once) == expected
    assert {path.name for path in tmp_path.glob("rows*.jsonl")} == set(jobs) - {"once.jsonl"}


def test_what_was_there_stays_with_its_shard_when_a_folder_grows(run, pictures, pan, tmp_path):
    def shares() -> dict[str, int]:
        found = find_sources(["in"], recursive=True)
        shards = [Shard(i + 1, COUNT) for i in range(COUNT)]
        return {str(path): s.number for s in shards for path in s.of(found).files}

    before = shares()
    for name in ("0", "bb", "deep/0"):
        pan[0].save(pictures / f"{name}.png")
    after = shares()
    assert len(after) == len(before) + 3
    assert after.items() >= before.items()


def test_shards_are_about_alike():
    names = [Path(f"in/{i:06}.jpg") for i in range(4000)]
    sizes = [sum(map(Shard(i + 1, 4).has, names)) for i in range(4)]
    assert sum(sizes) == 4000
    assert min(sizes) > 900  # 1000 ± 27


def test_shards_that_are_none(refused, run, pictures):
    for text in ("0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/2"):
        assert f"--shard {text}: give i/n with i from 1 to n" in refused(
            "predict", "in", f"--shard={text}"
        )
    assert "--shard: give the folder of all shards" in refused("predict", "in", "--shard", "1/2")
    assert run("predict", "in", "--shard", "1/2", "--out", "out").code in (0, 3)
    line = refused("predict", "in", "--shard", "1/3", "--out", "out")
    assert "--shard 1/3: out holds shards of 2; go on with --shard i/2" in line
    with pytest.raises(VovnetError, match="holds shards of 2"):
        Shard(1, 3).folder(pictures.parent / "out")


@pytest.mark.slow
def test_a_shard_of_nothing_is_done(run, pan, tmp_path):
    pan[0].save(tmp_path / "a.png")
    codes = [run("predict", "a.png", "--shard", f"{i}/3", "--out", "out").code for i in (1, 2, 3)]
    assert codes == [0] * 3
    assert len(list((tmp_path / "out").rglob("a.png"))) == 1
