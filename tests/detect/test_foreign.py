"""Other projects' ONNX files: what is taken, and what is refused in which words."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from vovnet.detect.foreign import Wants, feeds
from vovnet.errors import WeightsError
from vovnet.input_spec import InputSpec
from vovnet.load import load_detector
from vovnet.shipped import shipped_onnx

GOOD = {"input": {"height": 64, "width": 96}, "layout": "yolov5", "names": ["ant", "bee"]}
ROWS = np.array([[[48, 32, 24, 16, 1, 0.9, 0.1]]], np.float32)
PICTURE = Image.new("RGB", (96, 64))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "foreign.onnx"


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(WeightsError) as raised:
        load_detector(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def changed(where: str, value: object) -> dict:
    """`GOOD` with another value there; without it for `...`."""
    values = json.loads(json.dumps(GOOD))
    *outer, key = where.split(".")
    place = values[outer[0]] if outer else values
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return values


# ---- the description


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("layout", ..., "layout: is missing; add it"),
        ("layout", "yolov4", "layout: unknown layout 'yolov4'. Did you mean yolov"),
        ("layout", ["yolov5"], "layout: unknown layout "),
        ("names", [], "names: must be a list of texts, no two alike; mend it"),
        ("names", ["ant", "ant"], "names: must be a list of texts, no two alike; mend it"),
        ("names", "ant", "names: must be a list of texts, no two alike; mend it"),
        ("names", ["ant", 3], "names: must be a list of texts, no two alike; mend it"),
        ("background", "middle", "background: 'middle' must be none, first or last; mend it"),
        ("licence", 3, "licence: must be a text; mend it or leave it out"),
        ("license", "MIT", "unknown field 'license'. Did you mean licence?"),
        ("input", 416, "input: must be an object {...}; see vovnet describe"),
        ("input.height", ..., "input.height: is missing; add it"),
        ("input.height", "64", "input size ('64', 96): must be two whole numbers in 1..8192"),
        ("input.width", 10**9, "must be two whole numbers in 1..8192; mend it"),
        ("input.widht", 5, "unknown field 'input.widht'"),
        ("input.fit", "crop", "input fit 'crop': must be warp or letterbox; mend it"),
        ("input.place", "left", "input place 'left': must be centre or top left; mend it"),
        ("input.channels", "BGR", "input channels 'BGR': must be rgb or bgr; mend it"),
        ("input.pad", 300, "input pad 300: must be a whole number in 0..255; mend it"),
        ("input.scale", 0, "input.scale: 0 must be a number above 0; mend it"),
        ("input.mean", [0, 0], "input.mean: must be three finite numbers; mend it"),
        ("input.std", [1, 1, 0], "must be above 0; mend it"),
        ("input.std", [1, 1, float("nan")], "input.std: must be three finite numbers; mend it"),
    ],
)
def test_a_description_is_read_strictly(path, write_foreign, where, value, told):
    write_foreign(path, {"out": ROWS}, changed(where, value))
    line = refusal(path)
    assert line.startswith(f"{path.with_suffix('.json')}: ")
    assert told in line


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff", "5", "null"])
def test_a_description_that_is_none(path, write_foreign, text):
    write_foreign(path, {"out": ROWS})
    path.with_suffix(".json").write_text(text, encoding="latin-1")
    assert refusal(path).startswith(f"{path.with_suffix('.json')}: ")


def test_a_description_elsewhere(path, write_foreign, tmp_path):
    write_foreign(path, {"out": ROWS})
    other = tmp_path / "told.json"
    other.write_text(json.dumps(GOOD))
    assert load_detector(path, describe=other).names == ("ant", "bee")
    assert "cannot be read" in refusal(path, describe=tmp_path / "none.json")
    assert "leave out --describe" in refusal(shipped_onnx("vovdet_nano.voc"), describe=other)
    assert "leave out --describe" in refusal("vovdet_nano.voc", describe=other)


# ---- the input


def test_pixels_as_the_network_wants_them(path, write_foreign):
    """(pixel · scale − mean) / std, in the order of the network's channels."""
    told = changed(
        "input",
        GOOD["input"]
        | {"channels": "bgr", "scale": 0.5, "mean": [1, 2, 3], "std": [4, 5, 6], "pad": 7},
    )
    write_foreign(path, {"out": ROWS}, told)
    spec = load_detector(path).input_spec
    pixels = np.zeros((1, 64, 96, 3), np.uint8) + np.array([10, 20, 30], np.uint8)  # RGB
    seen = spec.normalize(pixels)[0, :, 0, 0]
    assert seen == pytest.approx([(15 - 1) / 4, (10 - 2) / 5, (5 - 3) / 6])
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_letterbox_at_the_top_left(path, write_foreign):
    write_foreign(path, {"out": ROWS}, changed("input.place", "top left"))
    detector = load_detector(path)
    pixels, place = detector.input_spec.prepare(Image.new("RGB", (64, 128), (255, 255, 255)))
    assert (pixels[:, :32] == 255).all()
    assert (pixels[:, 32:] == 114).all()
    assert place[:4] == (0.5, 0.5, 0, 0)


@pytest.mark.parametrize(
    ("order", "kind", "shape"),
    [
        ("N×3×H×W", "float16", (2, 3, 4, 6)),
        ("N×H×W×3", "float32", (2, 4, 6, 3)),
        ("N×H×W×3", "uint8", (2, 4, 6, 3)),
        ("3×H×W", "float32", (3, 4, 6)),
    ],
)
def test_inputs_of_every_kind(order, kind, shape):
    spec = InputSpec((4, 6), "warp", (0, 0, 0), (1, 1, 1), channels="bgr")
    pixels = np.zeros((2, 4, 6, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    [(name, images)] = feeds(Wants("x", order, kind, None, (4, 6)), spec, pixels).items()
    assert (name, images.shape, images.dtype) == ("x", shape, kind)
    first = images.take(0, axis=shape.index(3))
    assert (first == 30).all()


@pytest.mark.parametrize("kind", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("last", [False, True])
def test_files_that_take_them(path, write_foreign, kind, last):
    shape = (1, 64, 96, 3) if last else (1, 3, 64, 96)
    write_foreign(path, {"out": ROWS}, GOOD, shape=shape, kind=kind)
    [box] = load_detector(path).detect(PICTURE).boxes
    assert box.tolist() == [36, 24, 60, 40]


def test_a_size_left_open_is_the_descriptions(path, write_foreign):
    write_foreign(path, {"out": ROWS}, GOOD, shape=("n", 3, "h", "w"))
    detector = load_detector(path)
    assert detector.batch == 1  # it leaves the batch open, and yet answers for one
    assert [len(one) for one in detector.detect([PICTURE] * 3)] == [1, 1, 1]
    write_foreign(path, {"out": ROWS.repeat(2, 0)}, GOOD, shape=("n", 3, "h", "w"))
    assert load_detector(path).batch is None


# ---- what does not fit


def test_a_file_that_the_description_contradicts(path, write_foreign):
    write_foreign(path, {"out": ROWS}, changed("input.height", 96))
    beside = path.with_suffix(".json")
    assert refusal(path) == (
        f"{path}: takes 64×96, but {beside} says 96×96; mend input.height and input.width"
    )
    write_foreign(path, {"out": ROWS}, changed("names", ["ant"]))
    assert refusal(path) == (
        f"{path}: its outputs (out 1×1×7) tell 2 classes in layout yolov5, but {beside} names 1; "
        "mend names"
    )
    write_foreign(path, {"out": ROWS}, changed("input.scale", 0.5), kind="uint8")
    assert "takes uint8 pixels" in refusal(path)


def test_outputs_of_another_layout(path, write_foreign):
    beside = path.with_suffix(".json")
    write_foreign(path, {"out": ROWS}, changed("layout", "ssd"))
    assert refusal(path) == (
        f"{path}: its outputs (out 1×1×7) are not those of layout ssd, boxes N×A×4 (xyxy in 0..1) "
        "and scores N×A×C, the background first unless told; set layout to yolox_decoded or "
        f"yolov5 in {beside}"
    )
    write_foreign(path, {"out": np.zeros((1, 1000), np.float32)}, GOOD)  # a classifier
    assert "(out 1×1000) are not those of layout yolov5" in refusal(path)
    assert f"no known layout is near them in {beside}" in refusal(path)


@pytest.mark.parametrize(
    ("shape", "kind", "told"),
    [
        ((1, 4, 64, 96), "float32", "it must take 3 channels of float or uint8"),
        ((1, 64), "float32", "it must take pictures, and nothing else"),
        ((64, 96, 3), "float32", "export it for pictures N×3×H×W"),
    ],
)
def test_files_that_take_no_pictures(path, write_foreign, shape, kind, told):
    write_foreign(path, {"out": ROWS}, GOOD, shape=shape, kind=kind)
    assert refusal(path).startswith(f"{path}: takes images ")
    assert told in refusal(path)


def test_what_it_was_not_made_for(path, write_foreign):
    write_foreign(path, {"out": ROWS}, GOOD)
    assert "--imgsz" in refusal(path, imgsz=320)
    assert "--device" in refusal(path, device="cuda")
    with pytest.raises(Exception, match="holds fp32, for onnxruntime, openvino; not for eager"):
        load_detector(path, runtime="eager")


# ---- vovnet describe, and the verbs


def told_by(run, path: Path, *options: object) -> dict:
    return json.loads(run("describe", path, "--json", *options).out)


def test_describe_writes_what_predict_reads(run, refused, path, write_foreign):
    pytest.importorskip("skimage")
    write_foreign(path, {"output0": ROWS}, shape=(1, 3, 64, 96))
    assert "vovnet describe" in refused("predict", "skimage:coffee", "--weights", path)
    outcome = run("describe", path, "--out", path.with_suffix(".json"))
    assert (outcome.code, outcome.out) == (0, f"{path.with_suffix('.json')}\n")
    assert "vovnet: check names: the file has none; these are mere numbers" in outcome.err
    again = ("describe", path, "--out", path.with_suffix(".json"))
    assert "is there already" in refused(*again)
    assert "is an input itself" in refused("describe", path, "--out", path, "--overwrite")
    found = run("predict", "skimage:coffee", "--weights", path, "--no-save", "--json")
    [row] = json.loads(found.out)
    assert [one["label"] for one in row["detections"]] == ["class0"]


def test_describe_believes_the_metadata(run, path, write_foreign):
    columns = np.zeros((1, 6, 126), np.float32)
    columns[0, :, 5] = [48, 32, 24, 16, 0.9, 0.1]
    write_foreign(path, {"output0": columns}, shape=("n", 3, "h", "w"))
    model = onnx.load(path)
    said = {"names": "{0: 'ant', 1: 'bee'}", "stride": "32", "imgsz": "[64, 96]", "license": "AGPL"}
    onnx.helper.set_model_props(model, said)
    onnx.save(model, path)
    proposal = told_by(run, path)
    assert proposal["description"] == {
        "input": {
            "height": 64,
            "width": 96,
            "fit": "letterbox",
            "place": "centre",
            "pad": 114,
            "channels": "rgb",
            "scale": 1 / 255,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
        },
        "layout": "yolov8",
        "names": ["ant", "bee"],
        "licence": "AGPL",
    }
    assert [line.partition(":")[0] for line in proposal["unknown"]] == ["input.fit, place and pad"]
    assert proposal["operators"] == {"Identity": 1}


@pytest.mark.parametrize("names", ["{", "5", "{0: 1}", "[]", "(" * 5000, "__import__('os')"])
def test_describe_survives_bad_metadata(run, path, write_foreign, names):
    write_foreign(path, {"output0": ROWS})
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": names, "imgsz": names, "stride": names})
    onnx.save(model, path)
    assert told_by(run, path)["description"]["names"] == ["class0", "class1"]


def test_describe_doubts_what_finds_nothing(run, path, write_foreign):
    pytest.importorskip("skimage")
    write_foreign(path, {"output0": ROWS * 0})
    assert any(line.startswith("nothing is found") for line in told_by(run, path)["unknown"])


def test_describe_refuses(run, refused, path, write_foreign, tmp_path):
    write_foreign(path, {"out": np.zeros((1, 1000), np.float32)})
    line = refused("describe", path)
    assert "(out 1×1000) are those of no known layout; none is near: is it a detector?" in line
    write_foreign(path, {"out": np.zeros((1, 4, 3), np.float32)})
    assert "(out 1×4×3) are those of no known layout; nearest: yolox, " in refused("describe", path)
    write_foreign(path, {"out": ROWS}, shape=(1, 3, "h", "w"))
    assert "leaves the size of its input open; give --imgsz" in refused("describe", path)
    assert told_by(run, path, "--imgsz", 64)["description"]["input"]["width"] == 64
    assert "it needs no description" in refused("describe", shipped_onnx("vovdet_nano.voc"))
    assert "no such file" in refused("describe", tmp_path / "none.onnx")
    path.write_bytes(b"none")
    assert "onnxruntime cannot run it" in refused("describe", path)


def test_val_takes_the_classes_by_name(run, path, write_foreign, voc):
    """The set has blue and red; the file knows green too, and red under another number."""
    rows = np.zeros((1, 2, 8), np.float32)
    rows[0] = [[32, 32, 64, 64, 1, 0, 0, 0.9], [8, 8, 4, 4, 1, 0, 0.8, 0]]
    told = {"input": {"height": 64, "width": 64}, "layout": "yolov5"}
    write_foreign(
        path, {"out": rows}, told | {"names": ["green", "blue", "red"]}, shape=(1, 3, 64, 64)
    )
    outcome = run("val", voc, "--weights", path, "--json")
    figures = json.loads(outcome.out)
    assert "green" in outcome.err
    assert figures["images"] == 4
    assert (figures["runtime"], figures["weights"]) == ("onnxruntime", str(path))
    write_foreign(
        path, {"out": rows[..., :7]}, told | {"names": ["green", "blue"]}, shape=(1, 3, 64, 64)
    )
    assert "does not know red" in run("val", voc, "--weights", path).err
