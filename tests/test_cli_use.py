"""The command line with what people really type and have: bad sources, habits, earlier results."""

import json
from pathlib import Path

from PIL import Image


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)
    return path


def test_sources_that_give_nothing_among_good_ones(run, nano, tmp_path):
    picture(tmp_path / "in" / "a.png")
    for name in ("clip.mp4", "other.mp4", "notes.txt"):
        (tmp_path / "in" / name).touch()
    outcome = run("predict", "in", "skimage:nobody", "*.webp", "--weights", nano, "--json")
    assert outcome.code == 3
    nobody, webp, left, good = json.loads(outcome.out)
    assert [nobody["path"], webp["path"], left["path"]] == ["skimage:nobody", "*.webp", "in"]
    assert "unknown scikit-image picture" in nobody["error"]
    assert left["left_out"] == [
        {"kind": "video", "count": 2, "suffixes": [".mp4"]},
        {"kind": "text", "count": 1, "suffixes": [".txt"]},
    ]
    assert good["annotated"] == "runs/predict/predict/a.png"
    assert outcome.err.splitlines()[2] == (
        "vovnet: in: left out: 2 videos (.mp4), 1 text file (.txt)"
    )
    assert run("predict", "in", "--weights", nano).code == 0  # nothing failed


def test_earlier_results_are_replaced_only_when_told_to(run, refused, nano, tmp_path):
    path = picture(tmp_path / "in" / "a.png")
    before = path.read_bytes()
    again = ("predict", "in", "--weights", nano, "--out", "out")
    assert run(*again).code == 0
    assert "out/a.png is there already; give another name, or --overwrite" in refused(*again)
    assert run(*again, "--overwrite").code == 0
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(path)
    for more in ((), ("--overwrite",)):
        line = refused("predict", "links", "--weights", nano, "--out", "in", *more)
        assert line.endswith("--out in: in/a.png is an input itself; give another name")
    assert path.read_bytes() == before
