"""`vovnet bench` and the longer forms of `vovnet count`, as their users see them."""

import json

import pytest
from PIL import ImageOps

BRIEF = ("--seconds", 0.01, "--repeats", 2, "--no-memory")


def test_bench_prints_rows_as_json(run, nano):
    outcome = run("bench", nano, "--runtime", "eager,channels_last", *BRIEF, "--json")
    assert outcome.code == 0
    rows = json.loads(outcome.out)
    assert [(row["model"], row["runtime"]) for row in rows] == [
        (str(nano), "eager"),
        (str(nano), "channels_last"),
    ]
    for row in rows:
        assert row["latency_ms"]["value"] > 0
        assert row["joules_per_image"].keys() >= {"value", "reason"}
        assert row["environment"]["versions"]["torch"]
    assert "opening 1/2" in outcome.err
    assert "round 2/2" in outcome.err


def test_bench_in_part(run, nano, tmp_path):
    files = ("--csv", "rows.csv", "--html", "report.html", "--png", "figures")
    outcome = run("bench", nano, "nonsuch", *BRIEF, *files)
    assert outcome.code == 3
    head, first, second, *legend = outcome.out.splitlines()
    assert head.split()[:5] == ["model", "runtime", "precision", "ms", "p95"]
    assert first.split()[:3] == [str(nano), "eager", "fp32"]
    assert second.split()[0] == "nonsuch"
    assert second.split()[-1] == "failed"
    assert legend[0].startswith("matrix product ")
    assert legend[-3:] == ["rows.csv", "report.html", "figures"]
    assert (tmp_path / "figures" / "latency.png").is_file()
    assert "unknown model 'nonsuch'" in outcome.err
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
    assert "nonsuch" in (tmp_path / "report.html").read_text()


def write_photographs(root, photographs):
    """A VOC data set of a person and a cat, in which the shipped weights find both; the mirrored
    person is for training."""
    person, cat = photographs
    seen = {"person": (person, (1, 1, 440, 512)), "cat": (cat, (5, 5, 450, 300))}
    seen["mirrored"] = (ImageOps.mirror(person), (73, 1, 512, 512))
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for stem, (picture, corners) in seen.items():
        picture.save(root / "JPEGImages" / f"{stem}.png")
        name = "cat" if stem == "cat" else "person"
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        bounds = "".join(f"<{side}>{at}</{side}>" for side, at in sides)
        (root / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation><object><name>{name}</name><bndbox>{bounds}</bndbox></object></annotation>"
        )
    for split, stems in (("train", "mirrored"), ("val", "person\ncat")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{stems}\n")
    return root


@pytest.mark.slow
def test_bench_measures_accuracy_on_data(run, tmp_path, photographs):
    data = write_photographs(tmp_path / "seen", photographs)
    ways = ("--runtime", "onnxruntime", "--precision", "fp32,int8")
    options = (*ways, "--imgsz", 160, "--seconds", 0.01, "--repeats", 1, "--no-memory", "--json")
    outcome = run("bench", "vovdet_nano.voc", "vovnet27_slim", *options, "--data", data)
    assert outcome.code == 0
    figures = {
        (row["model"], row["runtime"], row["precision"]): (row["map_50"], row["map_50_95"])
        for row in json.loads(outcome.out)
    }
    exact = run("val", "--weights", "vovdet_nano.voc", "--imgsz", 160, "--data", data, "--json")
    wanted = json.loads(exact.out)
    same = (wanted["map_50"], wanted["map_50_95"])
    assert same[0] > 0.5
    assert figures["vovdet_nano.voc", "onnxruntime", "fp32"] == pytest.approx(same)
    # Calibrated on one picture only: it finds both still, at about the place.
    assert figures["vovdet_nano.voc", "onnxruntime", "int8"][0] == pytest.approx(same[0], abs=0.3)
    assert figures["vovnet27_slim", "onnxruntime", "fp32"] == (None, None)
    assert "evaluating vovdet_nano.voc onnxruntime int8" in outcome.err
    assert "vovnet27_slim: no accuracy: " in outcome.err


def test_bench_of_nothing_that_works(run):
    outcome = run("bench", "nonsuch", *BRIEF)
    assert outcome.code == 2
    assert "failed" in outcome.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--runtime", "onnxruntme"], "Did you mean onnxruntime"),
        (["--precision", "fp32,fp8"], "unknown precision 'fp8'"),
        (["--batch", 0], "--batch 0"),
        (["--seconds", 0], "--seconds 0"),
        (["--threads", 0], "--threads 0"),
    ],
)
def test_bench_refuses(refused, options, words):
    assert words in refused("bench", "vovnet39", *options)


def test_count_layers_and_dtype(run):
    arguments = ("count", "vovnet27_slim", "--imgsz", 64, "--layers")
    [row] = json.loads(run(*arguments, "--json").out)
    [half] = json.loads(run(*arguments, "--dtype", "fp16", "--json").out)
    assert half["bytes_moved"] < 0.6 * row["bytes_moved"]
    assert sum(layer["memory_access"] for layer in row["layers"]) == row["memory_access"]
    assert all(layer["ratio"] >= 0.99 for layer in row["layers"])
    table = run(*arguments).out
    assert "vovnet27_slim, its convolutions" in table
    assert "lower_bound" in table


def test_count_takes_the_networks_of_others(run, nano, refused):
    names = ("timm:resnet50", "torchvision:resnet50", str(nano))
    rows = json.loads(run("count", *names, "--json").out)
    assert [row["model"] for row in rows] == list(names)
    assert [round(row["macs"] / 1e9, 3) for row in rows[:2]] == [4.089, 4.089]
    assert (rows[2]["imgsz"], rows[2]["num_classes"]) == (64, 2)
    assert "nowhere.onnx" in refused("count", "nowhere.onnx")


def test_pick_refuses_when_no_candidate_finds_the_datas_classes(run, voc):
    ways = ("--runtime", "onnxruntime", "--precision", "fp32,int8")
    outcome = run("pick", "--candidates", "vovdet_nano.voc", *ways, "--data", voc)
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert last.endswith(
        f"no candidate finds the classes of {voc}; train one: vovnet train --data {voc}"
    )
    assert "int8" not in outcome.err  # what its float32 does not find, int8 need not be tried on


@pytest.mark.slow
def test_pick_leaves_out_what_does_not_find_the_datas_classes(run, nano, voc):
    options = ("--runtime", "onnxruntime,eager", "--precision", "fp32,bf16", "--max-ms", 1e5)
    candidates = ("--candidates", "vovdet_nano.voc", nano)
    outcome = run("pick", *candidates, *options, "--data", voc, "--json")
    assert outcome.code == 0, outcome.err
    picked = json.loads(outcome.out)
    assert picked["objective"] == "accuracy"
    ways = {(row["model"], row["runtime"], row["precision"]) for row in picked["table"]}
    assert ways == {
        (str(nano), *way) for way in (("onnxruntime", "fp32"), ("eager", "fp32"), ("eager", "bf16"))
    }
    assert all(row["map_compared"] for row in picked["table"])
    assert f"evaluating {nano} eager bf16" in outcome.err
    assert f"left out, for they have no accuracy on {voc}: vovdet_nano.voc" in outcome.err
