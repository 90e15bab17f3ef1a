"""Exported folders: what is in them, that they find the same, and what the gate refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import vovnet
from vovnet.cli import main
from vovnet.data.open import open_dataset
from vovnet.deploy import formats
from vovnet.deploy.export import Proof, export
from vovnet.deploy.formats import FORMATS, Order
from vovnet.deploy.sensitivity import most_sensitive
from vovnet.detect.pictures import Picture, to_pictures
from vovnet.detect.sessions import open_onnxruntime, openvino_core
from vovnet.detect.sidecar import read_sidecar
from vovnet.errors import RefusedError, VovnetError
from vovnet.models.detector import Detector
from vovnet.models.weights import load_detector
from vovnet.runtimes.on_tensorrt import in_half

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "bccd"
NUCLEI = DATA.with_name("nuclei")
SLOW = pytest.mark.slow
RUN_ALONE = """
import runpy, sys
sys.modules["torch"] = sys.modules["vovnet"] = None  # importing them raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])
"""


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("vovdet_nano.voc", imgsz=160)


@pytest.fixture(scope="module")
def pictures(photographs) -> list[Picture]:
    return [Picture(image, (image.height, image.width)) for image in photographs]


@pytest.fixture(scope="module")
def folder(detector, pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    export(detector, out, "onnx", Order(), Proof(pictures), weights="vovdet_nano.voc")
    return out


def test_a_folder_holds_model_sidecar_and_script(folder, detector):
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "run.py", "vovnet.json"]
    sidecar = read_sidecar(folder)
    assert (sidecar.model, sidecar.names) == (detector.name, detector.names)
    assert (sidecar.runtime, sidecar.precision, sidecar.outputs) == (
        *("onnxruntime", "fp32", "detections"),
    )
    assert sidecar.input == detector.input_spec
    assert sidecar.measured["exact"] is True
    assert sidecar.measured["boxes"] >= 2
    assert sidecar.versions["vovnet"] == vovnet.__version__


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("onnx", "fp32"),
        pytest.param("openvino", "fp32", marks=SLOW),
        pytest.param("ncnn", "fp32", marks=SLOW),
        pytest.param("torch", "fp32", marks=SLOW),
        pytest.param("litert", "fp32", marks=SLOW),
    ],
)
def test_every_format_finds_what_torch_finds(
    name, precision, folder, detector, pictures, photographs, tmp_path, compare_found
):
    where = folder
    if name == "litert":
        pytest.importorskip("litert_torch", reason="an extra of its own, vovnet[litert]")
    if name != "onnx":
        where = tmp_path / name
        facts = export(detector, where, name, Order(precision), Proof(pictures))
        assert facts["exact"]
    exported = vovnet.load_detector(where)
    assert (exported.runtime, exported.precision) == (FORMATS[name].runtime, precision)
    for conf in (0.02, 0.25):
        for one, two in zip(
            detector.detect(photographs, conf), exported.detect(photographs, conf), strict=True
        ):
            compare_found(one, two)


@pytest.mark.parametrize("fit", ["letterbox", pytest.param("warp", marks=SLOW)])
def test_the_script_needs_neither_torch_nor_vovnet(folder, photographs, tmp_path, fit):
    """Its boxes are those of `detect`, of a JPEG that is turned and larger than the input too."""
    where = folder
    if fit == "warp":
        where = tmp_path / "warp"
        warped = load_detector("dsod300-vovnet27_slim.voc")
        shown = [Picture(photographs[0], photographs[0].size[::-1])]
        export(warped, where, "onnx", Order(), Proof(shown))
    exif = Image.Exif()
    exif[0x0112] = 6
    large = photographs[1].resize((1353, 900))
    large.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    photographs[0].save(tmp_path / "plain.png")
    files = [tmp_path / "turned.jpg", tmp_path / "plain.png"]
    command = [sys.executable, "-c", RUN_ALONE, str(where / "run.py"), *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    printed = [line.split() for line in ran.stdout.splitlines()]
    found = [one for file in files for one in vovnet.load_detector(where).detect(file).to_rows()]
    assert len(found) >= 2
    assert len(printed) == len(found)
    for words, row in zip(printed, found, strict=True):
        assert words[1] == row["label"]
        assert float(words[2]) == pytest.approx(row["score"], abs=1e-4)
        corners = [row[key] for key in ("x1", "y1", "x2", "y2")]
        assert [float(word) for word in words[3:]] == pytest.approx(corners, abs=0.02)


@pytest.mark.parametrize(
    ("runtime", "whole"),
    [
        *(("onnxruntime", True), ("onnxruntime", False)),
        *(("openvino", False), ("ncnn", False), ("litert", False)),
    ],
)
def test_scripts_are_short(runtime, whole):
    from vovnet.deploy.export import _script

    text = _script(runtime, whole)
    assert text.count("\n") <= 60
    compile(text, "run.py", "exec")


@SLOW
def test_a_ruined_model_is_refused_and_nothing_stays(detector, pictures, tmp_path, monkeypatch):
    write = formats.write_network

    def ruined(model: Detector, path: Path, *rest: object) -> None:
        noised = load_detector("vovdet_nano.voc", imgsz=160)
        with torch.no_grad():
            for parameter in noised.network.heads.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape) * parameter.std())
        write(noised, path, *rest)

    monkeypatch.setattr(formats, "write_network", ruined)
    with pytest.raises(RefusedError, match="this is no rounding") as caught:
        export(detector, tmp_path / "out", "onnx", Order(), Proof(pictures))
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onxx"], "unknown format 'onxx'. Did you mean onnx?"),
        (["--format", "ncnn", "--precision", "int8"], "ncnn has fp32, bf16"),
        (["--format", "ncnn", "--batch", "4"], "ncnn runs one image at a time"),
        (["--precision", "int8"], "int8 needs pictures to calibrate on; give --data"),
        (["--batch", "many"], "--batch many: must be a whole number from 1, or dynamic"),
        (["--imgsz", "100"], "--imgsz 100 is not a positive multiple of 32"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: cannot be read"),
    ],
)
def test_bad_orders_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@SLOW
def test_what_tensorrt_is_given_computes_in_half_precision(
    detector, pictures, tmp_path, monkeypatch
):
    """Its engine cannot be built without a GPU; the ONNX file that it is built from runs here."""
    monkeypatch.setattr(formats, "import_tensorrt", lambda: None)
    monkeypatch.setattr(
        *(formats, "build_engine"),
        lambda path, shape, precision: in_half(path, tmp_path / "half.onnx").read_bytes(),
    )
    order = Order("fp16", batch=2)
    assert FORMATS["tensorrt"].write(detector, tmp_path, order, tmp_path) == ["model.engine"]
    half = onnx.load_model(tmp_path / "half.onnx").graph.initializer
    sizes = {kind: sum(t.ByteSize() for t in half if t.data_type == kind) for kind in (1, 10)}
    assert sizes[onnx.TensorProto.FLOAT16] > 20 * sizes[onnx.TensorProto.FLOAT]
    session = open_onnxruntime(tmp_path / "half.onnx", 1)
    pixels = formats.picture_pixels(detector, [picture.image for picture in pictures])
    with torch.no_grad():
        exact = formats.DenseNetwork(detector, pixels=True).eval()(torch.from_numpy(pixels))
    boxes, scores = (part.numpy() for part in exact)
    found_boxes, found_scores = session.run({"images": pixels})
    np.testing.assert_allclose(found_scores, scores, atol=0.01)
    seen = scores.max(2) > 0.1
    assert seen.any()
    np.testing.assert_allclose(found_boxes[seen], boxes[seen], atol=0.3)


def test_tensorrt_wants_the_gpu_that_it_builds_for(detector, pictures, tmp_path):
    proof = Proof(pictures)
    with pytest.raises(VovnetError, match="an engine has a size of batch; give --batch N"):
        export(detector, tmp_path / "a", "tensorrt", Order(batch=None), proof)
    if not torch.cuda.is_available():
        with pytest.raises(VovnetError, match="here is none; export there, or give --format onnx"):
            export(detector, tmp_path / "deep" / "er" / "b", "tensorrt", Order(), proof)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_unless_told(folder, detector, pictures, tmp_path):
    with pytest.raises(VovnetError, match="is there already; give another, or --overwrite"):
        export(detector, folder, "onnx", Order(), Proof(pictures))
    shutil.copytree(folder, tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    with pytest.raises(VovnetError, match=r"holds notes\.txt too, which would be lost"):
        export(detector, tmp_path / "mixed", "onnx", Order(), Proof(pictures), overwrite=True)
    assert (tmp_path / "mixed" / "notes.txt").read_text() == "mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(VovnetError, match="is there already, and no exported folder"):
        export(detector, tmp_path / "mine", "onnx", Order(), Proof(pictures), overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_what_cannot_run_here_is_converted_and_not_loaded(detector, pictures, tmp_path):
    pytest.importorskip("coremltools", reason="an extra of its own, vovnet[coreml]")
    told: list[str] = []
    facts = export(
        detector, tmp_path / "apple", "coreml", Order(), Proof(pictures), note=told.append
    )
    assert "boxes" not in facts
    assert told == ["coreml does not run here: what it finds is not compared"]
    with pytest.raises(VovnetError, match="Core ML runs on Apple's systems"):
        vovnet.load_detector(tmp_path / "apple")


@SLOW
def test_raw_and_any_batch(detector, pictures, tmp_path):
    """All boxes and scores, for any number of images at a time."""
    export(detector, tmp_path / "raw", "onnx", Order(batch=None, raw=True), Proof(pictures))
    sidecar = read_sidecar(tmp_path / "raw")
    assert (sidecar.outputs, sidecar.batch) == ("dense", None)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "raw" / "model.onnx")
    pixels = np.zeros((3, 160, 160, 3), np.uint8)
    boxes, scores = session.run(None, {"images": pixels})
    points = 20**2 + 10**2 + 5**2
    assert boxes.shape == (3, points, 4)
    assert scores.shape == (3, points, 20)
    images = [picture.image for picture in pictures] * 2
    together = vovnet.load_detector(tmp_path / "raw").detect(images)
    assert [len(found) for found in together] == [len(f) for f in detector.detect(images)]


def float_convolutions(folder: Path) -> int:
    """How many convolutions of an exported model have weights that are not quantized."""
    if (folder / "model.onnx").is_file():
        import onnx

        nodes = onnx.load_model(folder / "model.onnx").graph.node
        made_by = {name: node.op_type for node in nodes for name in node.output}
        convolutions = [node for node in nodes if node.op_type == "Conv"]
        return sum(made_by.get(node.input[1]) != "DequantizeLinear" for node in convolutions)
    model = openvino_core().read_model(folder / "model.xml")
    convolutions = [op for op in model.get_ops() if op.get_type_name().endswith("Convolution")]
    sources = [op.input(1).get_source_output().get_node() for op in convolutions]
    return sum(source.get_type_name() == "Constant" for source in sources)


@SLOW
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_keeps_in_floating_point_what_it_needs(
    name, detector, pictures, photographs, tmp_path, monkeypatch
):
    """Told that plain int8 loses too much, then that it does not with 5 % of the layers kept."""
    order = Order("int8", pixels=formats.picture_pixels(detector, photographs * 2))
    figures = iter([0.5, 0.4, 0.497])
    in_float: list[int] = []  # of each try; at first, of torch's detector, nothing is written

    def accuracies(*_: Any) -> dict[str, float]:
        tries = [folder for folder in tmp_path.glob(".kept.*") if (folder / "vovnet.json").exists()]
        in_float.extend(map(float_convolutions, tries))
        return {"map_50_95": next(figures)}

    monkeypatch.setattr("vovnet.deploy.export.accuracies", accuracies)
    truth: Any = "labelled images"  # what was measured on them is said above
    facts = export(detector, tmp_path / "kept", name, order, Proof(pictures, truth, 0.01))
    ranked = [layer for _, layer in most_sensitive(detector, order.pixels)]
    assert facts["kept_in_float"] == ranked[: round(0.05 * len(ranked))] != []
    assert facts["map_50_95_drop"] == pytest.approx(0.003)
    plain, kept = in_float
    assert kept == plain + len(facts["kept_in_float"])
    assert float_convolutions(tmp_path / "kept") == kept


@SLOW
def test_int8_that_loses_too_much_whatever_is_kept_is_refused(
    detector, pictures, photographs, tmp_path, monkeypatch
):
    order = Order("int8", pixels=formats.picture_pixels(detector, photographs))
    figures = iter([0.5, *[0.4] * 5])
    monkeypatch.setattr("vovnet.deploy.export.accuracies", lambda *_: {"map_50_95": next(figures)})
    truth: Any = "labelled images"
    with pytest.raises(RefusedError, match=r"falls by 0\.1000, from 0\.5000 to 0\.4000"):
        export(detector, tmp_path / "out", "onnx", order, Proof(pictures, truth, 0.01))
    assert next(figures, None) is None
    assert list(tmp_path.iterdir()) == []


@SLOW
@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data/bccd is not there")
def test_val_repeats_what_the_gate_measured(tmp_path, capsys):
    command = ["export", "--weights", "dsod300-vovnet27_slim.bccd", "--data", f"{DATA}@test"]
    command += ["--format", "openvino", "--precision", "int8", "--json"]
    assert main([*command, "--out", str(tmp_path / "int8")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["map_50_95_drop"] <= 0.01
    judge = ["val", "--weights", str(tmp_path / "int8"), "--data", f"{DATA}@test", "--json"]
    assert main(judge) == 0
    assert json.loads(capsys.readouterr().out)["map_50_95"] == facts["map_50_95_exported"]


@SLOW
@pytest.mark.skipif(not NUCLEI.is_dir(), reason="shared/data/nuclei is not there")
def test_two_stages_with_their_masks(tmp_path):
    detector = load_detector("maskrcnn-vovnet19_slim.nuclei")
    files = [r.path for r in open_dataset(NUCLEI, "val", detector.names).records[:3]]
    shown = to_pictures(files)[0]
    assert export(detector, tmp_path / "out", "onnx", Order(), Proof(shown))["exact"]
    exported = vovnet.load_detector(tmp_path / "out")
    assert exported.masks
    for one, two in zip(detector.detect(files), exported.detect(files), strict=True):
        assert len(one) == len(two) > 5
        differing = np.count_nonzero(one.masks.any(0) != two.masks.any(0))
        assert differing <= 0.002 * one.masks[0].size
    few = exported.detect(files[0], max_det=3)
    assert len(few) == len(few.masks) == 3
    with pytest.raises(VovnetError, match="a detector of two stages becomes ONNX in fp32"):
        export(detector, tmp_path / "ncnn", "ncnn", Order(), Proof(shown))
