"""What `pick` shows of its candidates: licences, stages, and a page with the front drawn."""

import json

import numpy as np
import pytest

from vovnet.lab.bench import Protocol
from vovnet.lab.pick import licence_of
from vovnet.lab.report.choice import choice_table, front_chart, write_choice

QUICK = Protocol(seconds=0.02, repeats=2, warmup=0, settling=0, threads=1, memory=False)


def candidate(model: str, ms: float | None, accuracy: float | None, verdict: str, **more) -> dict:
    row = {"model": model, "runtime": "onnxruntime", "precision": "fp32", "latency_ms": ms}
    row |= {"map_50_95": accuracy, "map_compared": accuracy is not None, "peak_memory_mb": 50.0}
    return (
        row | {"joules_per_image": None, "valid": True, "licence": None, "verdict": verdict} | more
    )


ROWS = [
    candidate("slow", 9.0, 0.4, "chosen", licence="MIT"),
    candidate("quick", 3.0, 0.2, "on the front"),
    candidate("worse", 9.5, 0.3, "dominated by slow onnxruntime fp32: slower"),
    candidate("none", None, None, "not measured: <b>gone</b>"),
]


def test_the_front_is_joined_from_the_fastest_on():
    chart = front_chart(ROWS)
    assert [point.name for point in chart.points] == ["slow", "quick", "worse"]
    [line] = chart.roofs
    assert line.points == ((3.0, 0.2), (9.0, 0.4))
    apart = front_chart([row | {"map_compared": False} for row in ROWS])
    assert apart.y.label == "peak memory, MB"


def test_the_page_tells_every_candidate_and_escapes_it(tmp_path, bench_row):
    write_choice(tmp_path / "pick.html", ROWS, [bench_row("slow", 9.0), bench_row("quick", 3.0)])
    page = (tmp_path / "pick.html").read_text()
    assert "<h2>The choice</h2>" in page
    assert 'id="front"' in page
    assert "not measured: &lt;b&gt;gone&lt;/b&gt;" in page
    cells = [cell.text for cell in choice_table(ROWS).lines[0].cells]
    assert cells == ["slow", "onnxruntime", "fp32", "9", "0.4", "50", "–", "MIT", "chosen"]


def test_licences_are_those_that_something_names(tmp_path):
    assert licence_of("vovdet_nano.voc")
    assert licence_of("vovdet_nano") is None
    assert licence_of(str(tmp_path / "none.onnx")) is None
    told = {"input": {"height": 64, "width": 64}, "layout": "yolov5", "names": ["a"]}
    (tmp_path / "x.json").write_text(json.dumps(told | {"licence": "GPL-3.0"}))
    assert licence_of(str(tmp_path / "x.onnx")) == "GPL-3.0"


@pytest.mark.slow
def test_the_verb_writes_a_choice_that_predict_takes(run, refused, tmp_path, voc, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr("vovnet.lab.pick.SCREENING", QUICK)
    monkeypatch.setattr("vovnet.lab.pick.FINAL", QUICK)
    rows = np.array([[[32, 32, 24, 16, 1, 0.9, 0.1]]], np.float32)
    stored = onnx.numpy_helper.from_array(rows, "rows")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["rows"], ["out"])],
        "g",
        [value("images", 1, (1, 3, 64, 64))],
        [value("out", 1, (1, 1, 7))],
        [stored],
    )
    path = tmp_path / "other.onnx"
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    told = {"input": {"height": 64, "width": 64}, "layout": "yolov5", "names": ["blue", "red"]}
    path.with_suffix(".json").write_text(json.dumps(told | {"licence": "MIT"}))
    call = ("pick", "--candidates", path, "--data", voc, "--runtime", "onnxruntime")
    outcome = run(*call, "--out", "choice.yaml", "--html", "pick.html", "--json")
    assert outcome.code == 0, outcome
    [row] = json.loads(outcome.out)["table"]
    assert row["licence"] == "MIT"
    assert row["stages_ms"]["network"] > 0
    assert "licence: MIT" in (tmp_path / "choice.yaml").read_text()
    assert "The choice" in (tmp_path / "pick.html").read_text()
    chosen = ("skimage:coffee", "--config", "choice.yaml", "--json", "--no-save")
    [found] = json.loads(run("predict", *chosen).out)
    assert found["detections"]
    assert "only runs as it is" in refused("export", "--config", "choice.yaml")
    assert "is an input itself" in refused(*call, "--html", path)
