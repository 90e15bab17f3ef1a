"""The command line with what people really type and have: bad sources, habits, earlier results."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from vovnet.cli import app
from vovnet.cli._print import PLAIN
from vovnet.errors import UnknownNameError
from vovnet.models import create_backbone
from vovnet.models.weights import save_tensors
from vovnet.shipped import SHIPPED


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


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("predict source=a.png imgsz=640", "predict a.png --imgsz 640"),
        ("predict a.png save=False", "predict a.png --no-save"),
        ("predict a.png --save False --conf 0.2", "predict a.png --no-save --conf 0.2"),
        ("predict a.png --save True", "predict a.png --save"),
        ("predict a.png --imgsz 640 480", "predict a.png --imgsz 640"),
        ("predict a.png --device 0", "predict a.png --device cuda:0"),
        ("predict a.png --device=1", "predict a.png --device=cuda:1"),
        ("train data=x.yaml epochs=3 device=0", "train --data x.yaml --epochs 3 --device cuda:0"),
        ("train --data x --device gpu", "train --data x --device cuda"),
        ("val data=x model=vovdet_nano", "val x --model vovdet_nano"),
        ("bench vovnet39 --memory 0 imgsz=64", "bench vovnet39 --no-memory --imgsz 64"),
        ("train --data x --lr0 0.01 --batch-size=8", "train --data x --lr 0.01 --batch=8"),
        ("train data=x lr0=.01 exist_ok=True", "train --data x --lr .01"),
        ("train --data x --exist-ok --project p --epochs 3", "train --data x --epochs 3"),
        (
            "train --data x --optimizer SGD lrf=.1",
            "train --data x --set optimizer=sgd --set final_lr=.1",
        ),
        ("train resume=True", "train --resume RUN"),
        ("detect predict source=a.png conf_thres=.4", "predict a.png --conf .4"),
        ("predict a.png --nosave", "predict a.png --no-save"),
    ],
)
def test_habits_of_other_toolkits_are_answered_with_the_line_to_type(refused, typed, line):
    assert refused(*typed.split()).endswith(f". Type: vovnet {line}")


@pytest.mark.parametrize(
    "typed",
    [
        "train data=C epochs=1 project=x",
        "train data=C save=True",
        "train data=C task=detect mode=train",
        "train data=C pretrained=True optimizer=sgd format=coco split=val conf=.1",
        "train data=C amp=True",
        "train data=C amp=False batch=4",
        "train data=C lr0=.01 lrf=.1 fliplr=.5 momentum=.9 plots=True",
        "predict x.png project=y conf=0.3",
        "val data=C split=test device=0",
    ],
)
def test_the_line_to_type_is_understood(refused, typed):
    line = refused(*typed.split()).partition(". Type: vovnet ")[2]
    app.parse_args(line, exit_on_error=False, print_error=False)


def test_options_that_a_verb_lacks_are_named(refused):
    line = refused("train", "data=C", "task=x", "project=y", "optimizer=sgd")
    assert "train has no task" in line
    assert "project is not needed: runs lie below runs/" in line
    assert line.endswith("Type: vovnet train --data C --set optimizer=sgd")


def test_a_folder_that_is_called_like_a_side_or_a_model_stays_what_it_is(run, nano, tmp_path):
    (tmp_path / "2024").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "2024" / "a.png")
    options = ("--weights", nano, "--no-save", "--json")
    assert run("predict", "--imgsz", "64", "2024", *options).code == 0
    (tmp_path / "alexnet").mkdir()
    (tmp_path / "vovdet_nano").mkdir()
    assert run("count", "vovdet_nano").code == 0


def test_what_only_looks_like_a_habit_is_left_alone(run, refused, nano, tmp_path):
    path = picture(tmp_path / "save=1.png")
    assert run("predict", path.name, "--weights", nano, "--no-save").code == 0
    line = refused("train", "--set", "epochs=1", "lr=0.1", "--data", "nowhere")
    assert "nowhere: no such file" in line
    assert "no such weights file" in refused("predict", "a.png", "--weights", "model=x/y")


def test_the_nearest_names_come_first_and_each_once(refused):
    error = UnknownNameError("detector", "vov", [*(f"ssd{i}" for i in range(40)), "vovdet_nano"])
    assert "Known: vovdet_nano, " in str(error)
    assert str(error).endswith("and 21 more.")
    twice = refused("predict", "a.png", "--model", "zzz")
    known = twice.partition("Known: ")[2].rstrip(".").split(", ")
    assert len(known) == len(set(known)) > 2


def test_a_locale_without_these_characters():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", errors=PLAIN) as stream:
        stream.write("multiply–accumulates 10⁶ × 2 → caf\u00e9 \udce9")
        stream.flush()
        assert raw.getvalue() == rb"multiply-accumulates 10^6 x 2 -> caf\xe9 \udce9"


def test_val_takes_its_data_like_other_verbs(run, refused, voc, nano):
    assert run("val", voc, "--weights", nano).code == 0
    line = refused("val", voc)  # the shipped weights know VOC's classes
    assert "give --weights for these classes, or --drop-unknown" in line


def test_count_says_that_weights_are_counted_fused(run):
    plain, weights = json.loads(run("count", "vovdet_nano", "vovdet_nano.voc", "--json").out)
    assert (plain["fused"], weights["fused"]) == (False, True)
    assert weights["params"] < plain["params"]  # the norms are folded into the convolutions
    folded = "weights are counted as predict runs them, with their batch norms folded"
    assert folded in run("count", "vovdet_nano.voc").out
    assert folded not in run("count", "vovdet_nano").out


def test_models_with_shipped_weights(run):
    rows = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert rows["vovdet_nano"]["kind"] == "detector"
    assert {name for name, row in rows.items() if row["kind"] == "weights"} == set(SHIPPED)
    nano = rows["vovdet_nano.voc"]
    assert (nano["input"], nano["measured_on"]) == (224, "voc2007 report")
    assert 0.3 < nano["map_50_95"] < nano["map_50"] < 0.6
    lines = run("models").out.splitlines()
    assert max(map(len, lines)) <= 100
    [line] = [line for line in lines if line.startswith("vovdet_nano.voc ")]
    assert line.endswith("voc2007 report")


def test_int8_of_what_is_not_exported_is_answered_with_the_export(refused, nano):
    for verb in (("predict", "a.png"), ("val", "voc")):
        line = refused(*verb, "--weights", nano, "--precision", "int8")
        assert "use the folder that vovnet export --config CHOICE.yaml" in line
