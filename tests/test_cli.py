"""The command line as its users see it: what is printed where, and the exit code."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from vovnet import __version__
from vovnet.models import create_backbone
from vovnet.models.costs import listed_costs
from vovnet.models.weights import save_tensors

CONF = "0.0105"  # random weights score every class near 0.01


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


@contextmanager
def spawned(folder: Path, *arguments: object) -> Generator[subprocess.Popen, None, None]:
    """The command line as a process of its own in `folder`, ended when the test is."""
    with subprocess.Popen(
        [sys.executable, "-m", "vovnet", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- telling


def test_version_and_help(run):
    assert run("--version") == (0, f"{__version__}\n", "")
    overview = run("--help")
    assert (overview.code, overview.err) == (0, "")
    verbs = ("models", "count", "bench", "doctor", "train", "val", "predict", "pick", "env")
    for verb in (*verbs, "report", "describe", "convert", "fetch"):
        assert f" {verb} " in overview.out
        assert run(verb, "--help").code == 0
    assert "Exit codes" in overview.out


def test_models(run):
    plain = run("models", "vovnet39*")
    assert plain.code == 0
    head, first, *others = [line.split() for line in plain.out.splitlines()]
    assert head == ["name", "kind", "params", "macs", "input"]
    assert first == ["vovnet39", "backbone", "22.60", "M", "7.766", "G", "224"]
    assert [line[0] for line in others] == ["vovnet39_v2", "vovnet39a"]
    [row] = json.loads(run("models", "vovnet39", "--json").out)
    assert row == {"name": "vovnet39", "kind": "backbone", **listed_costs()["vovnet39"]._asdict()}


def test_count(run):
    [row] = json.loads(run("count", "vovnet39", "--imgsz", 64, "--json").out)
    assert row.keys() >= {
        *("model", "imgsz", "num_classes", "params", "macs", "flops", "memory_access"),
        *("bytes_moved", "activations", "uncounted_ops"),
    }
    assert (row["model"], row["imgsz"], row["flops"]) == ("vovnet39", 64, 2 * row["macs"])
    table = run("count", "vovnet27_slim", "vovnet39", "--imgsz", 64)
    assert table.code == 0
    assert [line.split()[0] for line in table.out.splitlines()[:3]] == [
        *("model", "vovnet27_slim", "vovnet39")
    ]


def test_env(run):
    facts = json.loads(run("env", "--json").out)
    assert facts["versions"]["vovnet"] == __version__
    assert f"torch: {torch.__version__}" in run("env").out


# ---- names and options that do not exist


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predct", "a.png"], 'Did you mean "predict"'),
        (["predict", "--cnof", "0.2", "a.png"], "Did you mean --conf"),
        (["predict", "--conf", "high", "a.png"], "--conf"),
        (["predict"], "sources"),
        (["train", "--amp", "fp8", "--data", "x"], "amp"),
        (["count", "vovnet3"], "Did you mean vovnet39"),
        (["models", "vovent39"], "Did you mean vovnet39"),
        (["count", "vovnet39", "--imgsz", "0"], "at least 1"),
        (["predict", "a.png", "--weights", "vovdet_nano.vc"], "Did you mean vovdet_nano.voc"),
        (["predict", "a.png", "--model", "vovdet_nan"], "Did you mean vovdet_nano"),
        (["predict", "a.png", "--model", "vovnet39"], "unknown model with shipped weights"),
        (["predict", "a.png", "--conf", "2"], "--conf 2.0: must lie in 0..1"),
        (["predict", "a.png", "--iou", "-1"], "--iou -1.0: must lie in 0..1"),
        (["predict", "a.png", "--weights", "no/such.safetensors"], "no such weights file"),
        (["val", "--data", "x", "--batch", "0"], "--batch 0"),
        (["val", "--data", "x", "--conf", "2"], "--conf 2.0"),
        (["val", "--data", "x", "--iou", "-1"], "--iou -1.0"),
    ],
)
def test_usage_errors(refused, arguments, words):
    assert words in refused(*arguments)


def test_messages_stay_on_one_line(refused):
    assert r"two\nlines*.png: matches no file" in refused("predict", "two\nlines*.png")
    assert r"two\nlines.safetensors" in refused(
        "predict", "a.png", "--weights", "two\nlines.safetensors"
    )


# ---- pictures


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4


def truncate(path: Path) -> None:
    Image.effect_noise((90, 90), 90).save(path)
    path.write_bytes(path.read_bytes()[:1500])


BAD_PICTURES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing.jpg": ("no such file", lambda path: None),
    "truncated.jpg": ("damaged", truncate),
    "bomb.png": ("pixels", lambda path: path.write_bytes(png_header(50_000, 50_000))),
    "empty.jpg": ("is empty", Path.touch),
    "text.jpg": ("not a readable", lambda path: path.write_text("hello")),
    "pipe.jpg": ("a pipe", os.mkfifo),
    "loop.jpg": ("a loop of symbolic links", lambda path: path.symlink_to(path.name)),
    "folder.jpg/x.jpg": ("no such file", lambda path: picture(path.parent)),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture(refused, nano, tmp_path, name):
    words, make = BAD_PICTURES[name]
    make(tmp_path / name)
    line = refused("predict", name, "--weights", nano)
    assert line.startswith(f"vovnet: {name}: ")
    assert words in line
    assert not list((tmp_path / "runs").glob("*/*"))


def test_sources_without_pictures(refused, nano, tmp_path):
    (tmp_path / "hollow").mkdir()
    assert "hollow: no images" in refused("predict", "hollow", "--weights", nano)
    assert "*.webp: matches no file" in refused("predict", "*.webp", "--weights", nano)
    assert "Did you mean astronaut" in refused("predict", "skimage:astronot", "--weights", nano)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("cmyk.jpg", "CMYK", (60, 40)),
        ("deep.png", "I;16", (60, 40)),
        ("palette.png", "P", (60, 40)),
        ("alpha.png", "RGBA", (60, 40)),
        ("grey-alpha.png", "LA", (60, 40)),
        ("grey.webp", "L", (60, 40)),
        ("dot.png", "RGB", (1, 1)),
        ("sliver.png", "RGB", (1, 900)),
    ],
)
def test_pictures_of_every_kind_work(run, nano, tmp_path, name, mode, size):
    picture(tmp_path / name, mode, size)
    outcome = run("predict", name, "--weights", nano, "--conf", CONF, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    [row] = json.loads(outcome.out)
    assert (row["width"], row["height"]) == size
    with Image.open(tmp_path / row["annotated"]) as drawn:
        assert drawn.size == size


def test_bad_pictures_among_good_ones(run, nano, tmp_path):
    for name in ("a.png", "m.png", "z.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "b.jpg").write_text("hello")
    (tmp_path / "in" / "n.jpg").touch()
    mixed = run("predict", "in", "--weights", nano, "--json")
    rows = json.loads(mixed.out)
    assert mixed.code == 3
    assert [row["path"] for row in rows] == [f"in/{n}" for n in ("a.png", "b.jpg", "m.png")] + [
        *("in/n.jpg", "in/z.png")
    ]
    assert ["error" in row for row in rows] == [False, True, False, True, False]
    assert rows[1]["error"].startswith("in/b.jpg: not a readable")
    assert mixed.err.splitlines() == [f"vovnet: {rows[i]['error']}" for i in (1, 3)]
    drawn = sorted(path.name for path in (tmp_path / "runs/predict/predict").glob("*.png"))
    assert drawn == ["a.png", "m.png", "z.png"]
    every = run("predict", "in/b.jpg", "in/n.jpg", "--weights", nano)
    assert (every.code, every.out) == (2, "")
    assert len(every.err.splitlines()) == 2


def test_what_predict_prints(run, nano, tmp_path):
    picture(tmp_path / "a.png")
    first = run("predict", "a.png", "--weights", nano, "--conf", CONF)
    assert (first.code, first.err) == (0, "")
    head, *found, folder = first.out.splitlines()
    assert head == f"a.png: {len(found)} found -> runs/predict/predict/a.png"
    assert found
    for line in found:
        label, score, *box = line.split()
        assert label in {"blue", "red"}
        assert 0.01 <= float(score) <= 1
        assert len(box) == 4
    assert folder == "runs/predict/predict"
    second = run("predict", "a.png", "--weights", nano, "--conf", CONF)
    assert second.out.splitlines()[-1] == "runs/predict/predict-2"
    third = run("predict", "a.png", "--weights", nano, "--no-save")
    assert third.out == "a.png: 0 found\n"
    assert not (tmp_path / "runs/predict/predict-3").exists()


def test_annotated_copies_never_replace_the_pictures(refused, run, nano, tmp_path):
    path = picture(tmp_path / "in" / "a.png")
    before = path.read_bytes()
    line = refused("predict", "in", "--weights", nano, "--conf", CONF, "--out", "in/../in")
    assert "holds the pictures themselves" in line
    assert path.read_bytes() == before
    assert "is no folder" in refused("predict", "in", "--weights", nano, "--out", "in/a.png")
    assert run("predict", "in", "--weights", nano, "--out", "new/out").code == 0
    assert (tmp_path / "new" / "out" / "a.png").is_file()


def test_file_names_that_are_no_text(run, nano, tmp_path):
    path = picture(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    outcome = run("predict", path.name, "--weights", nano, "--json", "--no-save")
    assert (outcome.code, outcome.err) == (0, "")
    [row] = json.loads(outcome.out)
    assert os.fsencode(row["path"]) == b"caf\xe9.png"
    assert run("predict", path.name, "--weights", nano, "--no-save").code == 0


# ---- weights, sizes, devices


def test_weights_that_do_not_fit(refused, nano, tmp_path):
    picture(tmp_path / "a.png")
    torch.save({"model": [1, 2]}, tmp_path / "pickled.pt")
    torch.save({"model": [1, 2]}, tmp_path / "renamed.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(nano.read_bytes()[:5000])
    (tmp_path / "empty.safetensors").touch()
    cases = {
        "pickled.pt": "a pickled checkpoint",
        "renamed.safetensors": "a pickled checkpoint",
        "cut.safetensors": "not a readable safetensors file",
        "empty.safetensors": "not a readable safetensors file",
        "a.png": "not a readable safetensors file",
    }
    for name, words in cases.items():
        line = refused("predict", "a.png", "--weights", tmp_path / name)
        assert line.startswith(f"vovnet: {tmp_path / name}: ")
        assert words in line
    line = refused("predict", "a.png", "--weights", nano, "--model", "dsod300-vovnet27_slim")
    assert "holds weights for vovdet_nano, not for dsod300-vovnet27_slim" in line


def test_sizes_and_devices_that_cannot_be(refused, nano, tmp_path):
    picture(tmp_path / "a.png")
    for side in (100, 0, -32):
        line = refused("predict", "a.png", "--weights", nano, "--imgsz", side)
        assert f"vovdet_nano: --imgsz {side} is not a positive multiple of 32" in line
    assert "device toaster: not usable" in refused(
        "predict", "a.png", "--weights", nano, "--device", "toaster"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("verb", ["predict", "val", "train"])
def test_no_cuda_here(refused, voc, nano, tmp_path, verb):
    picture(tmp_path / "a.png")
    options = {
        "predict": ["a.png", "--weights", nano],
        "val": ["--data", voc, "--weights", nano],
        "train": ["--data", voc],
    }
    assert "device cuda: not usable here" in refused(verb, *options[verb], "--device", "cuda")
    assert not list((tmp_path / "runs").glob("*/*"))


# ---- data


def test_val(run, voc, nano):
    plain = run("val", "--data", voc, "--weights", nano)
    assert plain.code == 0
    lines = dict(line.split(maxsplit=1) for line in plain.out.splitlines())
    assert float(lines["map_50"]) <= 1
    assert {"map_50_95", "voc07_ap", "blue", "red"} <= lines.keys()
    assert (lines["images"], lines["split"]) == ("4", "val")
    metrics = json.loads(run("val", "--data", f"{voc}@train", "--weights", nano, "--json").out)
    assert metrics["images"] == 8
    assert metrics["per_class"].keys() == {"blue", "red"}
    assert 0 <= metrics["map_50_95"] <= metrics["map_50"] <= 1
    assert {"voc07_ap", "voc_area_ap", "map_75"} <= metrics.keys()


def test_val_tells_of_faults_in_the_annotations(run, make_voc, nano, tmp_path):
    root = make_voc(tmp_path / "voc", train=1, val=2)
    file = root / "Annotations" / "val00.xml"
    file.write_text(file.read_text().replace("<name>blue</name>", "<name></name>"))
    outcome = run("val", "--data", root, "--weights", nano, "--json")
    assert (outcome.code, json.loads(outcome.out)["problems"]) == (0, 1)
    assert outcome.err == (
        "vovnet: error VD302 class-without-name: 1 left out; name the class (val, val00.png, "
        "object 1: no <name>)\n"
    )


def test_datasets_that_cannot_be_used(refused, make_voc, nano, tmp_path):
    root = make_voc(tmp_path / "voc", train=1, val=1)
    (tmp_path / "hollow").mkdir()
    (root / "ImageSets" / "Main" / "none.txt").touch()
    options = ("--weights", nano)
    assert "nowhere: no such file" in refused("val", "--data", "nowhere", *options)
    assert "hollow: no data set is recognised" in refused("val", "--data", "hollow", *options)
    assert "split none has no images" in refused("val", "--data", "voc@none", *options)
    assert "Did you mean train?" in refused("val", "--data", "voc@tran", *options)
    assert "Did you mean val?" in refused("val", "--data", "voc", "--split", "vaal", *options)
    file = root / "Annotations" / "val00.xml"
    file.write_text(file.read_text().replace("red", "read"))
    line = refused("val", "--data", "voc", *options)
    assert "the model does not know read (1 boxes) (it knows red); give --weights" in line
    (root / "JPEGImages" / "train00.png").write_text("hello")
    line = refused("train", "--data", "voc", "--imgsz", 64, "--epochs", 1)
    assert "train00.png: not a readable" in line


# ---- training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--batch", "-1"], "batch is -1"),
        (["--lr", "0"], "lr is 0.0; it must be above 0"),
        (["--workers", "-1"], "workers is -1"),
        (["--seed", "-1"], "seed is -1"),
        (["--imgsz", "100"], "--imgsz 100 is not a positive multiple of 32"),
        (["--imgsz", "0"], "imgsz is 0"),
        (["--model", "vovdet_nanoo"], "Did you mean vovdet_nano or vovdet_small?"),
        (["--model", "vovnet39"], "unknown detector 'vovnet39'"),
        (["--name", "../x"], "give a plain name"),
        (["--val", "nowhere"], "nowhere: no such file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--config", "bad.yaml"], "unknown recipe key 'epoch'. Did you mean epochs"),
        (["--config", "odd.yaml"], "recipe: mosaic is 0.5"),
        (["--resume", "."], "no state.safetensors to resume from"),
        (["--weights", "vovdet_nano.vco"], "Did you mean vovdet_nano.voc"),
        (["--epochs", "1", "--minutes", "1"], "epochs and minutes are both given"),
        (["--set", "lr"], "--set lr: write KEY=VALUE"),
        (["--set", "lr=[1"], "--set lr=[1: write KEY=VALUE"),
        (["--set", "mixup=0.1", "epoch=3"], "unknown recipe key 'epoch'. Did you mean epochs"),
        (["--set", "metric=map"], "unknown recipe metric 'map'"),
        (["--patience", "3", "--val", "none"], "patience needs evaluations; give val"),
    ],
)
def test_training_that_cannot_start(refused, voc, tmp_path, options, words):
    (tmp_path / "bad.yaml").write_text("epoch: 3")
    (tmp_path / "odd.yaml").write_text("mosaic: 0.5")
    data = () if "--resume" in options else ("--data", f"{voc}@train")
    assert words in refused("train", *data, *options)
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--freeze", "bakbone"], "unknown part to freeze 'bakbone'. Did you mean backbone"),
    ],
)
def test_training_that_fails_after_it_said_what_it_chose(run, voc, options, words):
    code, out, err = run("train", "--data", f"{voc}@train", *options)
    *_, chosen, error = err.splitlines()
    assert (code, out) == (2, "")
    assert chosen.startswith("chosen for 8 images on this machine: epochs 300, batch 2, ")
    assert error.startswith(f"vovnet: {words}")


def test_training_needs_data(refused):
    assert "data not given; add --data" in refused("train")


def test_a_backbones_weights_need_a_detectors_name(refused, voc, tmp_path):
    file = tmp_path / "backbone.safetensors"
    facts = {"model": "vovnet27_slim", "settings": {}, "num_classes": 0}
    save_tensors(file, create_backbone("vovnet27_slim").state_dict(), facts)
    options = ("--data", f"{voc}@train", "--weights", file)
    assert "give --model FAMILY-vovnet27_slim too" in refused("train", *options)
    assert "nothing in them fits pelee304" in refused(
        "train", *options, "--model", "pelee304-peleenet"
    )


def test_train_validate_predict_and_resume(run, refused, voc, tmp_path):
    options = ("--epochs", 1, "--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off")
    data = ("--data", f"{voc}@train", "--val", f"{voc}@val")
    first = run("train", *data, *options, "--name", "small")
    assert first.code == 0
    assert first.out == "runs/train/small\n"
    assert "loss_class" in first.err
    second = run("train", *data, *options, "--name", "small", "--json")
    row = json.loads(second.out)
    assert (second.code, row["folder"], row["epoch"]) == (0, "runs/train/small-2", 1)
    assert row["loss_class"] > 0 <= row["map_50"]
    folder = tmp_path / "runs" / "train" / "small"
    weights = folder / "weights" / "best.safetensors"
    assert run("val", "--data", voc, "--weights", weights).code == 0
    assert "is it a run's state?" in refused(
        "val", "--data", voc, "--weights", folder / "state.safetensors"
    )
    for more in (["--batch", 8], ["--lr", 1], ["--name", "x"], ["--data", voc]):
        line = refused("train", "--resume", folder, *more)
        assert "--resume takes the run's own recipe; only these may be changed: epochs," in line
    third = run("train", "--resume", folder, "--epochs", 2)
    assert (third.code, third.out) == (0, f"{folder}\n")
    assert len((folder / "results.csv").read_text().splitlines()) == 3
    (folder / "state.safetensors").write_text("hello")
    assert "not a readable safetensors file" in refused("train", "--resume", folder, "--epochs", 3)


# ---- as a process


def test_exit_codes_of_the_process(nano, tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("hello")
    with spawned(tmp_path, "predict", ".", "--weights", nano, "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 3
    assert ["error" in row for row in json.loads(out)] == [True, False]
    assert len(err.splitlines()) == 1
    with spawned(tmp_path, "predict", "--no-such-option") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert "--no-such-option" in err


def test_a_reader_that_has_enough(tmp_path):
    with spawned(tmp_path, "env") as process:
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == ""
        assert process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_training_quietly(voc, tmp_path, number):
    options = ("--epochs", 50, "--imgsz", 64, "--batch", 4, "--workers", 1, "--name", "stopped")
    results = tmp_path / "runs" / "train" / "stopped" / "results.csv"
    with spawned(tmp_path, "train", "--data", f"{voc}@train", *options) as process:
        while not (results.parent / "state.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, number)  # a terminal and a scheduler tell the workers too
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-2:] == [
        "vovnet: saved; go on with: vovnet train --resume runs/train/stopped",
        "vovnet: stopped",
    ]
    assert "Traceback" not in err
    assert results.is_file()
