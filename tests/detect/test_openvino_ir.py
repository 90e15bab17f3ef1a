"""Other projects' OpenVINO IR: wherever an ONNX file is taken, and refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.errors import VovnetError
from vovnet.lab.fastest import _place
from vovnet.lab.pick import jobs_for
from vovnet.lab.stages import EndToEnd
from vovnet.lab.target import open_target
from vovnet.load import default_runtime, load_detector
from vovnet.runtimes import open_onnx

openvino = pytest.importorskip("openvino")

ROWS = np.array([[[48, 32, 24, 16, 1, 0.9, 0.1], [20, 20, 8, 8, 1, 0, 0.4]]], np.float32)
TOLD = {"input": {"height": 64, "width": 64}, "layout": "yolov5", "names": ["blue", "red"]}
PICTURE = Image.new("RGB", (64, 64))


def as_ir(onnx: Path) -> Path:
    """The same network as an IR beside it, its description under its own name."""
    path = onnx.with_name("ir.xml")
    openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)
    if onnx.with_suffix(".json").is_file():
        path.with_suffix(".json").write_text(onnx.with_suffix(".json").read_text())
    return path


@pytest.fixture
def onnx(tmp_path, write_foreign) -> Path:
    return write_foreign(tmp_path / "other.onnx", {"out": ROWS}, TOLD, shape=(1, 3, 64, 64))


def test_it_finds_what_the_onnx_file_finds(onnx):
    mine, other = load_detector(as_ir(onnx)), load_detector(onnx)
    assert (mine.runtime, mine.precision, mine.names) == ("openvino", "fp32", ("blue", "red"))
    assert mine.detect(PICTURE).to_dict() == other.detect(PICTURE).to_dict() != []
    assert default_runtime(as_ir(onnx)) == "openvino"


def test_verbs_take_it(run, voc, onnx):
    path = as_ir(onnx)
    rows = [
        json.loads(run("predict", "skimage:coffee", "--weights", p, "--json", "--no-save").out)
        for p in (path, onnx)
    ]
    assert rows[0][0]["detections"] == rows[1][0]["detections"] != []
    assert json.loads(run("val", voc, "--weights", path, "--json").out)["runtime"] == "openvino"
    proposal = json.loads(run("describe", path, "--json").out)
    assert proposal["description"]["input"]["height"] == 64


@pytest.mark.parametrize("name", ["other.onnx", "ir.xml"])
def test_serve_answers_as_predict_does(run, tmp_path, onnx, name):
    testclient = pytest.importorskip("fastapi.testclient")
    from vovnet.serve import Limits
    from vovnet.serve.app import create_app

    path = as_ir(onnx).with_name(name)
    PICTURE.save(tmp_path / "black.png")
    [row] = json.loads(run("predict", "black.png", "--weights", path, "--json", "--no-save").out)
    with testclient.TestClient(create_app(load_detector(path), Limits())) as client:
        picture = (tmp_path / "black.png").read_bytes()
        [answer] = client.post("/v1/predict", content=picture).json()["results"]
    assert len(answer["detections"]) == 2
    assert answer["detections"] == row["detections"]


def test_it_is_measured_from_jpeg_to_boxes(onnx):
    path = as_ir(onnx)
    target = open_target(str(path))
    assert (target.imgsz, target.num_classes) == (64, 2)
    with open_onnx(path, "openvino", batch=1, image_size=(64, 64)) as runner:
        stages = EndToEnd(target.foreign, runner, None, 1)
        stages.run()
    assert len(stages.found[0]) == 2
    with pytest.raises(VovnetError, match="eager does not run ONNX files"):
        open_onnx(path, "eager")
    with pytest.raises(VovnetError, match="onnxruntime does not run an IR, only openvino does"):
        open_onnx(path, "onnxruntime")


def test_the_picker_tries_openvino_alone():
    assert {job.runtime for job in jobs_for(["ir.xml"])} == {"openvino"}
    with pytest.raises(VovnetError, match=r"ir\.xml: is read by openvino only"):
        jobs_for(["ir.xml"], runtimes=["onnxruntime"])


def test_other_numbers_are_another_file(onnx):
    """An .xml is the same for all weights of one network."""
    path = as_ir(onnx)
    before = _place(str(path), "fp32", None, "cpu")
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert _place(str(path), "fp32", None, "cpu") != before


def test_what_is_no_ir(refused, onnx, tmp_path):
    path = as_ir(onnx)
    call = ("predict", "skimage:coffee", "--weights", path)
    path.with_suffix(".json").rename(tmp_path / "told.json")
    assert f"vovnet describe {path} --out" in refused(*call)
    described = (*call, "--describe", tmp_path / "told.json")
    assert "not for onnxruntime fp32" in refused(*described, "--runtime", "onnxruntime")
    path.with_suffix(".bin").rename(tmp_path / "gone.bin")
    assert "ir.bin is missing beside it; copy both files" in refused(*described)
    for text in ("", "<annotation/>", "<net" + "x" * 9):
        path.write_text(text)
        assert "ir.xml" in refused(*described)
    path.write_text("<annotation/>")
    assert "is no OpenVINO IR; give the .xml of one" in refused(*described)


def test_what_was_exported_is_given_as_a_folder(refused, tmp_path):
    (tmp_path / "vovnet.json").write_text("{}")
    (tmp_path / "model.xml").write_text("<net/>")
    line = refused("predict", "skimage:coffee", "--weights", tmp_path / "model.xml")
    assert f"vovnet export wrote it; give its folder, {tmp_path}" in line


@pytest.mark.parametrize("name", ["other.onnx", "ir.xml"])
def test_nothing_is_trained_or_exported_from_it(refused, voc, onnx, name):
    path = as_ir(onnx).with_name(name)
    mend = "give a .safetensors file or a run's folder"
    assert mend in refused("export", "--weights", path)
    line = refused("train", "--data", voc, "--weights", path)
    assert mend in line
    assert f"vovnet train --teacher {path}" in line
