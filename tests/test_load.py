"""One way to a detector: what is taken for what, and what is refused in which words."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from vovnet.detect.file_detector import FileDetector
from vovnet.detect.sidecar import SIDECAR, file_hash
from vovnet.errors import VovnetError, WeightsError
from vovnet.load import default_runtime, load_detector, served_by
from vovnet.shipped import shipped_onnx

NAME = "vovdet_nano.voc"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder as it is exported: the shipped ONNX file and its sidecar."""
    folder = tmp_path_factory.mktemp("exported")
    path = shutil.copy(shipped_onnx(NAME), folder / "model.onnx")
    sidecar = load_detector(NAME, runtime="onnxruntime").sidecar
    sidecar = replace(sidecar, files={"model.onnx": file_hash(Path(path))})
    (folder / SIDECAR).write_text(json.dumps(sidecar.to_dict()))
    return folder


def refusal(error: type[VovnetError], *arguments: object, **options: object) -> str:
    with pytest.raises(error) as raised:
        load_detector(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def with_facts(path: Path, **changes: object) -> None:
    """Write the shipped file with other words about itself."""
    model = onnx.load(shipped_onnx(NAME))
    facts = {entry.key: entry for entry in model.metadata_props}["vovnet"]
    facts.value = json.dumps(json.loads(facts.value) | changes)
    onnx.save(model, path)


def test_every_way_finds_the_same(exported, photographs):
    ways = [
        load_detector(NAME),
        load_detector(NAME, runtime="onnxruntime"),
        load_detector(NAME, runtime="openvino"),
        load_detector(shipped_onnx(NAME)),
        load_detector(exported),
        load_detector(str(exported), "vovdet_nano", runtime="onnxruntime", imgsz=224),
    ]
    runtimes = ["eager", "onnxruntime", "openvino", "onnxruntime", "onnxruntime", "onnxruntime"]
    assert [detector.runtime for detector in ways] == runtimes
    for detector in ways:
        found = detector.detect(photographs[1])
        assert [detector.names[label] for label in found.labels] == ["cat"]
        assert found.boxes[0] == pytest.approx(ways[0].detect(photographs[1]).boxes[0], abs=0.05)


def test_the_runtime_that_starts_fastest():
    assert default_runtime(NAME) == default_runtime(NAME, imgsz=224) == "onnxruntime"
    assert default_runtime(NAME, imgsz=256) == default_runtime(NAME, "cuda") == "eager"
    assert default_runtime("dsod300-vovnet27_slim.voc") == "eager"
    assert default_runtime("mine.safetensors") == "eager"


def test_the_files_own_size_needs_no_other_file():
    detector = load_detector(NAME, runtime="onnxruntime", imgsz=224)
    assert isinstance(detector, FileDetector)
    assert detector.input_spec.size == (224, 224)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "vovdet_small"}, ("--model", "vovdet_nano", "vovdet_small")),
        ({"runtime": "openvino"}, ("--runtime", "onnxruntime", "openvino")),
        ({"runtime": "eager"}, ("--runtime", "onnxruntime", "eager")),
        ({"precision": "bf16"}, ("--precision", "fp32", "bf16")),
        ({"imgsz": 256}, ("--imgsz", "224", "256")),
        ({"device": "cuda"}, ("--device", "cpu", "cuda")),
    ],
)
def test_an_exported_folder_is_for_one_use(exported, options, told):
    option, there, wanted = told
    assert refusal(WeightsError, exported, **options) == (
        f"{exported}: was exported for {option} {there}, not {wanted}; "
        f"leave out {option}, or export it again"
    )


def test_an_onnx_file_runs_in_what_reads_it():
    path = shipped_onnx(NAME)
    told = f"{path}: holds fp32, for onnxruntime, openvino; not for "
    assert refusal(VovnetError, path, runtime="ncnn") == f"{told}ncnn fp32"
    assert refusal(VovnetError, path, precision="bf16") == f"{told}onnxruntime bf16"
    assert "was exported for --imgsz 224, not 256" in refusal(WeightsError, path, imgsz=256)


def test_an_onnx_file_is_of_the_precision_that_it_holds(tmp_path):
    path = tmp_path / "int8.onnx"
    with_facts(path, precision="int8")
    assert load_detector(path).precision == "int8"
    assert load_detector(path, runtime="openvino").precision == "int8"
    told = f"{path}: holds int8, for onnxruntime, openvino; not for onnxruntime fp32"
    assert refusal(VovnetError, path, precision="fp32") == told


def test_a_strangers_onnx_file(tmp_path):
    info = helper.make_tensor_value_info("in", TensorProto.FLOAT, (1, 3, 5, 7))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 3, 5, 7))
    graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "graph", [info], [out])
    opset = [helper.make_opsetid("", 20)]
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    assert refusal(WeightsError, path) == (
        f"{path}: does not say how it is to be read, and relu.json beside it is missing; "
        f"vovnet describe {path} --out {tmp_path / 'relu.json'} proposes one"
    )


def test_an_onnx_file_of_a_newer_vovnet(tmp_path):
    path = tmp_path / "newer.onnx"
    with_facts(path, format=99)
    told = f"{path}: was written by a newer vovnet; update this one"
    assert refusal(WeightsError, path) == told


@pytest.mark.parametrize("value", ["", "[]", "{", "5"])
def test_an_onnx_file_whose_facts_are_damaged(tmp_path, value):
    model = onnx.load(shipped_onnx(NAME))
    {entry.key: entry for entry in model.metadata_props}["vovnet"].value = value
    path = tmp_path / "damaged.onnx"
    onnx.save(model, path)
    assert refusal(WeightsError, path).startswith(f"{path}: is damaged")


def test_what_is_not_there(tmp_path):
    path = tmp_path / "none.onnx"
    assert refusal(WeightsError, path) == f"{path}: no such file; check the path"
    assert "no best or last weights in it" in refusal(WeightsError, tmp_path)
    assert refusal(VovnetError, "vovdet_nano.vocc").startswith("unknown weights 'vovdet_nano.vocc'")


def test_only_what_ships_is_given_another_runtime_than_its_own(tmp_path):
    assert served_by("vovdet_nano.voc") == "onnxruntime"
    assert served_by(str(tmp_path)) is None  # an exported folder knows its own
    assert served_by("vovdet_nano.voc", "cuda") == "eager"
