"""A real detector of others, and an independent check of what `val` says about it."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovnet.data.open import open_dataset
from vovnet.detect.foreign import ForeignDetector
from vovnet.evaluate.run import evaluate
from vovnet.load import load_detector

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
FILE = SHARED / "models" / "yolox_nano.onnx"
COCO = SHARED / "data" / "coco2017_part"
INPUT = {"height": 416, "width": 416, "place": "top left", "channels": "bgr"}
PERSON, CAT, IMAGES = 0, 15, 100

needs_file = pytest.mark.skipif(not FILE.is_file(), reason=f"{FILE} is not there")


@pytest.fixture(scope="module")
def coco() -> dict:
    """COCO's classes in their order, and the first pictures with their truth."""
    if not COCO.is_dir():
        pytest.skip(f"{COCO} is not there")
    whole = json.loads((COCO / "instances_train.json").read_text())
    images = whole["images"][:IMAGES]
    ids = {image["id"] for image in images}
    truth = [one for one in whole["annotations"] if one["image_id"] in ids]
    return whole | {"images": images, "annotations": truth}


@pytest.fixture(scope="module")
def names(coco) -> list[str]:
    return [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The file alone, where something can be written beside it."""
    folder = tmp_path_factory.mktemp("yolox")
    shutil.copy(FILE, folder)
    return folder


def opened(folder: Path, names: list[str], **options: object) -> ForeignDetector:
    told = {"input": INPUT, "layout": "yolox", "names": names, "licence": "Apache-2.0"}
    (folder / "yolox_nano.json").write_text(json.dumps(told))
    return load_detector(folder / "yolox_nano.onnx", threads=1, **options)


@needs_file
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_finds_the_person_and_the_cat(folder, photographs, runtime):
    pytest.importorskip(runtime)
    names = [f"class{i}" for i in range(80)]
    detector = opened(folder, names, runtime=runtime)
    person, cat = (detector.detect(photograph) for photograph in photographs)
    assert (person.labels.tolist(), cat.labels.tolist()) == ([PERSON], [CAT])
    # The astronaut sits in the middle, from head to the lower rim.
    x1, y1, x2, y2 = person.boxes[0]
    assert 0 <= x1 < 40
    assert 0 <= y1 < 40
    assert 340 < x2 < 420
    assert 490 < y2 <= 512
    assert person.scores[0] > 0.9


def plainly(session, path: Path) -> list[tuple[list[float], float, int]]:
    """What the file finds in a picture, read as its authors' words say, with plain loops."""
    picture = Image.open(path).convert("RGB")
    scale = min(416 / picture.width, 416 / picture.height)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), 2)
    whole = np.full((416, 416, 3), 114, np.float32)
    whole[: small.height, : small.width] = np.asarray(small)
    [output] = session.run(None, {"images": whole[:, :, ::-1].transpose(2, 0, 1)[None].copy()})
    scores = output[0, :, 4:5] * output[0, :, 5:]
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(416 // s) for x in range(416 // s)]
    pairs = sorted(np.argwhere(scores > 0.001).tolist(), key=lambda at: -scores[tuple(at)])[:1000]
    kept: list[tuple[list[float], float, int]] = []
    for row, label in pairs:
        x, y, stride = cells[row]
        cx, cy = (output[0, row, 0] + x) * stride, (output[0, row, 1] + y) * stride
        w, h = np.exp(output[0, row, 2:4]) * stride
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        if all(other != label or overlap(box, taken) <= 0.6 for taken, _, other in kept):
            kept.append((box, float(scores[row, label]), label))
    limits = [picture.width, picture.height] * 2
    scales = [small.width / picture.width, small.height / picture.height] * 2
    place = zip(limits, scales, strict=True)
    bounds = list(place)
    return [
        ([min(max(v / k, 0), most) for v, (most, k) in zip(box, bounds, strict=True)], score, label)
        for box, score, label in kept[:300]
    ]


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@needs_file
@pytest.mark.slow
def test_val_agrees_with_pycocotools(folder, coco, names, tmp_path):
    from onnxruntime import InferenceSession
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    (tmp_path / "instances_val.json").write_text(json.dumps(coco))
    (tmp_path / "images").symlink_to(COCO / "images")
    detector = opened(folder, names)
    figures = evaluate(detector, open_dataset(tmp_path, "val", detector.names, purpose="val"))
    session = InferenceSession(FILE, providers=["CPUExecutionProvider"])
    ids = [category["id"] for category in sorted(coco["categories"], key=lambda c: c["id"])]
    rows = [
        {
            "image_id": image["id"],
            "category_id": ids[label],
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": score,
        }
        for image in coco["images"]
        for box, score, label in plainly(session, tmp_path / "images" / image["file_name"])
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = Truth(str(tmp_path / "instances_val.json"))
        judge = COCOeval(truth, truth.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert figures["map_50_95"] > 0.2
    for name, value in zip(("map_50_95", "map_50", "map_75"), judge.stats, strict=False):
        assert figures[name] == pytest.approx(value, abs=1e-3), name
    print(figures["map_50_95"], judge.stats[0])
