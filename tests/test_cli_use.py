"""The command line with what people really type and have: bad sources, habits, earlier results."""

import json
from pathlib import Path

from PIL import Image

from vovnet.models import create_backbone
from vovnet.models.weights import save_tensors


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


def test_no_verb_writes_over_what_it_reads(refused, nano, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(nano.read_bytes())
    (tmp_path / "link.yaml").symlink_to(own)
    (tmp_path / "results.json").write_text("[]")
    is_input = "is an input itself; give another name"
    for call in (
        ("bench", own, "--csv", "link.yaml"),
        ("bench", own, "--html", own),
        ("pick", "--candidates", own, "--out", "link.yaml"),
        ("pick", "--val-results", "results.json", "--out", "results.json"),
        ("convert", own, "link.yaml", "--overwrite"),
    ):
        assert is_input in refused(*call)
    assert own.read_bytes() == nano.read_bytes()


def test_weights_and_figures_of_before_are_replaced_only_when_told_to(run, refused, nano, tmp_path):
    vovnet = tmp_path / "vovnet.safetensors"
    facts = {"model": "vovnet27_slim", "settings": {}, "num_classes": 0}
    save_tensors(vovnet, create_backbone("vovnet27_slim").state_dict(), facts)
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    convert = ("convert", vovnet, "mine.safetensors", "--to", "timm")
    assert refused(*convert) == (
        "vovnet: convert: mine.safetensors is there already; "
        "give another name, or --overwrite to replace it"
    )
    assert (tmp_path / "mine.safetensors").read_bytes() == b"mine"
    assert run(*convert, "--overwrite").code == 0
    picture(tmp_path / "figures" / "holiday.png")
    line = refused("bench", nano, "--png", "figures")
    assert "--png: figures/holiday.png is there already" in line
    assert "--csv: figures is a folder" in refused("bench", nano, "--csv", "figures")
