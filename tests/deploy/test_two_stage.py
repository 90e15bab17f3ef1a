"""Two-stage networks as one ONNX file, against torch on the same images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn

from vovnet.deploy.two_stage import write_two_stage
from vovnet.detect.options import Options
from vovnet.errors import VovnetError
from vovnet.models import create_detector
from vovnet.models.detector import Detector, Found
from vovnet.models.weights import load_detector

SIZE = (128, 128)
FIELDS = ("boxes", "scores", "labels", "masks", "mask_scores")
BIAS = "first_network.proposer.cls_logits.bias"


def detector_of(family: str) -> Detector:
    """Random weights that say more than the first ones would: classes that differ, boxes moved."""
    torch.manual_seed(0)
    made = create_detector(f"{family}-vovnet19_slim_dw", ("a", "b", "c")).eval()
    made.input_spec = replace(made.input_spec, size=SIZE)
    for name, layer in made.network.named_modules():
        if name in {"box_head.classes", "box_head.offsets", "mask_score.overlaps"}:
            nn.init.normal_(layer.weight, std=0.2)
        if name == "boxes.classes":
            nn.init.normal_(layer.weight, std=0.1)
        if name == "proposer.cls_logits":
            nn.init.constant_(layer.bias, 0.1)  # zeros would be left out of the file
    return made


def drawn_images(detector: Detector, count: int) -> list[Tensor]:
    """Blurred discs of several sizes on grey, as the network takes them."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        picture = Image.new("RGB", detector.input_spec.size[::-1], (60, 60, 64))
        pen = ImageDraw.Draw(picture)
        for x, y, side, *colour in rng.integers(
            (0, 0, 8, 0, 0, 0), (110, 110, 60, 256, 256, 256), (12, 6)
        ):
            pen.ellipse((x, y, x + side, y + side), fill=tuple(map(int, colour)))
        picture = picture.filter(ImageFilter.GaussianBlur(1))
        pixels, _ = detector.input_spec.prepare(picture)
        images.append(detector.normalize(torch.from_numpy(pixels[None])))
    return images


def run(session: ort.InferenceSession, images: Tensor, conf: float, iou: float) -> Found:
    given = {"images": images.numpy(), "conf": np.float32([conf]), "iou": np.float32([iou])}
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(names, given), strict=True))
    assert found["count"].shape == ()
    assert found["count"] == len(found["labels"])
    assert found["boxes"].shape == (len(found["labels"]), 4)
    assert "masks" not in found or found["masks"].shape[1:] == (28, 28)
    return Found(**{k: torch.from_numpy(found[k]) for k in FIELDS if k in found})


def assert_same(found: Found, wanted: Found) -> None:
    """Every detection has its like, but for one in fifty: two libraries round differently, which
    swaps neighbours of one score, and takes another for the last of many."""
    assert (found.scores.diff() <= 0).all()
    assert abs(len(found.labels) - len(wanted.labels)) <= 0.02 * len(wanted.labels)
    alike = found.labels[None] == wanted.labels[:, None]
    for name, near in (("boxes", 0.05), ("scores", 1e-3), ("masks", 0.02), ("mask_scores", 1e-3)):
        mine, other = getattr(found, name), getattr(wanted, name)
        assert (mine is None) == (other is None), name
        if other is not None:
            apart = (mine[None] - other[:, None]).abs()
            alike &= apart.flatten(2).amax(2) < near if apart.ndim > 2 else apart < near
    assert alike.any(1).sum() >= 0.98 * len(wanted.labels)
    assert alike.any(0).sum() >= 0.98 * len(found.labels)


def session_of(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(
    scope="module",
    params=[pytest.param(f, marks=pytest.mark.slow) for f in ("maskrcnn_lite", "centermask_lite")],
)
def written(request, tmp_path_factory) -> tuple[Detector, Path]:
    detector = detector_of(request.param)
    path = tmp_path_factory.mktemp("two_stage") / "detector.onnx"
    write_two_stage(detector, path)
    return detector, path


@torch.no_grad()
def test_the_file_finds_and_draws_what_torch_does(written):
    """Thresholds are the caller's; above the last nothing is left, which is no special case."""
    detector, path = written
    session = session_of(path)
    counts = set()
    for images in drawn_images(detector, 2):
        outputs = detector.network(images)
        best = float(detector.decode(outputs, SIZE, Options(0.0, 0.6))[0].scores[0])
        for conf, iou in ((0.0, 0.3), (0.9 * best, 0.6), (1.0, 0.5)):
            [wanted] = detector.decode(outputs, SIZE, Options(conf, iou))
            assert_same(run(session, images, conf, iou), wanted)
            counts.add(len(wanted.labels))
    assert min(counts) == 0
    assert len(counts) > 2


def test_without_any_region_nothing_is_found(written, tmp_path):
    """The first stage is sure that there is no object: no region has features to be classified."""
    detector, path = written
    if detector.name.startswith("centermask"):
        pytest.skip("has no regions before its detections")
    model = onnx.load(path)
    [bias] = [one for one in model.graph.initializer if one.name == BIAS]
    bias.CopyFrom(numpy_helper.from_array(np.full(3, -30, np.float32), BIAS))
    onnx.save(model, tmp_path / "sure.onnx")
    found = run(session_of(tmp_path / "sure.onnx"), drawn_images(detector, 1)[0], 0.0, 0.6)
    assert len(found.labels) == 0


def test_networks_of_one_stage_are_refused(tmp_path):
    detector = create_detector("vovdet_nano", ("a",))
    with pytest.raises(VovnetError, match="vovdet_nano: no two-stage network; export it with"):
        write_two_stage(detector, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@torch.no_grad()
def test_boxes_alone(tmp_path):
    detector = detector_of("fasterrcnn_lite")
    write_two_stage(detector, tmp_path / "x.onnx")
    session = session_of(tmp_path / "x.onnx")
    for images in drawn_images(detector, 2):
        [wanted] = detector.decode(detector.network(images), SIZE, Options(0.2, 0.6))
        assert len(wanted.labels) > 10
        assert_same(run(session, images, 0.2, 0.6), wanted)


@pytest.mark.slow
@torch.no_grad()
def test_shipped_weights_draw_the_same_nuclei(tmp_path):
    detector = load_detector("maskrcnn-vovnet19_slim.nuclei", fuse=True)
    write_two_stage(detector, tmp_path / "x.onnx")
    session = session_of(tmp_path / "x.onnx")
    size = detector.input_spec.size
    for images in drawn_images(detector, 2):
        for conf in (0.001, 0.25):
            [wanted] = detector.decode(detector.network(images), size, Options(conf, 0.6))
            assert len(wanted.labels) > 3
            assert_same(run(session, images, conf, 0.6), wanted)
