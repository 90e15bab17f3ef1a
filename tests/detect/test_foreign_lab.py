"""Other projects' ONNX files measured: from JPEG to boxes, and in the picker."""

import json

import numpy as np
import pytest

from vovnet.errors import VovnetError
from vovnet.images import decode_image
from vovnet.lab.bench import Protocol
from vovnet.lab.pick import jobs_for
from vovnet.lab.stages import EndToEnd, photograph
from vovnet.lab.target import open_target
from vovnet.runtimes import open_onnx

ROWS = np.array([[[48, 32, 24, 16, 1, 0.9, 0.1], [20, 20, 8, 8, 1, 0, 0.4]]], np.float32)
TOLD = {"input": {"height": 64, "width": 64}, "layout": "yolov5", "names": ["ant", "bee"]}
QUICK = Protocol(seconds=0.01, repeats=1, warmup=0.01, memory=False, energy=False)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_boxes_of_the_stages_are_those_of_detect(tmp_path, write_foreign, runtime):
    pytest.importorskip(runtime)
    path = write_foreign(tmp_path / "other.onnx", {"out": ROWS}, TOLD, shape=(1, 3, 64, 64))
    target = open_target(str(path))
    assert (target.imgsz, target.num_classes, target.foreign.names) == (64, 2, ("ant", "bee"))
    with open_onnx(path, runtime, batch=1, image_size=(64, 64)) as runner:
        stages = EndToEnd(target.foreign, runner, None, 1)
        assert len(stages.run()) == 5
    image, size = decode_image(photograph()[0], shrink_to=64)
    assert size == (512, 512)
    whole = target.foreign.detect(image).boxes * (512 / image.width)
    assert len(whole) == 2
    np.testing.assert_allclose(stages.found[0], whole, rtol=1e-5)


def test_json_beside_a_file_that_is_no_description(tmp_path, write_foreign):
    path = tmp_path / "other.onnx"
    write_foreign(path, {"out": ROWS}, {"epochs": 3}, shape=(1, 3, 64, 64))
    assert open_target(str(path)).foreign is None
    write_foreign(path, {"out": ROWS}, TOLD | {"names": []}, shape=(1, 3, 64, 64))
    with pytest.raises(VovnetError, match="names: must be a list"):
        open_target(str(path))


def test_the_picker_tries_what_can_be_used_after():
    jobs = jobs_for(["other.onnx", "vovdet_nano.voc"])
    mine = {(job.runtime, job.precision) for job in jobs if job.model == "other.onnx"}
    assert mine == {("onnxruntime", "fp32"), ("openvino", "fp32")}
    assert len(jobs) > len(mine) + 4
    asked = jobs_for(["other.onnx"], runtimes=["openvino"], precisions=["bf16"])
    assert [job.precision for job in asked] == ["bf16"]
    with pytest.raises(VovnetError, match=r"other\.onnx: is read by onnxruntime, openvino only"):
        jobs_for(["other.onnx"], runtimes=["eager"])


def test_bench_tells_stages_and_accuracy(run, tmp_path, write_foreign, voc):
    path = write_foreign(
        tmp_path / "other.onnx",
        {"out": ROWS},
        TOLD | {"names": ["blue", "red"]},
        shape=(1, 3, 64, 64),
    )
    quick = ("--seconds", 0.01, "--repeats", 1, "--no-memory", "--threads", 1, "--json")
    outcome = run("bench", path, "--runtime", "onnxruntime", "--data", voc, *quick)
    assert outcome.code == 0, outcome
    [row] = json.loads(outcome.out)
    assert set(row["stages_ms"]) == {"decode", "prepare", "network", "postprocess", "end_to_end"}
    assert row["map_50"] is not None
    assert row["num_classes"] == 2


def test_auto_takes_a_runtime_that_reads_the_file(run, tmp_path, write_foreign, monkeypatch):
    monkeypatch.setenv("VOVNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vovnet.lab.fastest._PROTOCOL", QUICK)
    path = write_foreign(tmp_path / "other.onnx", {"out": ROWS}, TOLD, shape=(1, 3, 64, 64))
    call = ("predict", "skimage:coffee", "--weights", path, "--runtime", "auto", "--no-save")
    first, again = run(*call), run(*call)
    assert (first.code, again.code) == (0, 0), first
    assert "measuring 2 runtimes" in first.err
    assert "measured now" in first.err
    assert "eager" not in first.err
    assert "as measured before" in again.err
    assert first.out == again.out


def test_auto_tells_what_is_not_there(tmp_path, refused):
    (tmp_path / "half.xml").write_text("<net/>")
    call = ("predict", "skimage:coffee", "--runtime", "auto", "--no-save", "--weights")
    for name, missing in (("none.safetensors",) * 2, ("none.onnx",) * 2, ("half.xml", "half.bin")):
        line = refused(*call, tmp_path / name)
        assert f"{tmp_path / missing}: cannot be read (No such file or directory)" in line
