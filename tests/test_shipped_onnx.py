"""The ONNX files that ship find what the weights beside them find, and are made of these."""

from pathlib import Path

import numpy as np
import pytest

from vovnet.detect.options import Options
from vovnet.detections import Detections
from vovnet.load import load_detector
from vovnet.predict import expand_sources
from vovnet.shipped import SHIPPED, shipped_onnx

TWINS = [name for name in SHIPPED if shipped_onnx(name)]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "camera")


@pytest.fixture(scope="module", params=TWINS)
def pair(request):
    """In torch, from the weights; and in ONNX Runtime, from the file beside them."""
    detectors = [load_detector(request.param, runtime=r) for r in ("eager", "onnxruntime")]
    assert [d.runtime for d in detectors] == ["eager", "onnxruntime"]
    return detectors


def overlaps(found: Detections, twin: Detections) -> np.ndarray:
    """The IoU of every box with the twin's of the same place."""
    a, b = found.boxes.astype(float), twin.boxes.astype(float)
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = shared.clip(0).prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared)


def test_everyday_detectors_have_one():
    assert {"vovdet_nano.voc", "vovdet_small.voc"} <= set(TWINS)


@pytest.mark.parametrize("conf", [0.25, 0.01])
def test_photographs(pair, conf):
    pytest.importorskip("skimage")
    pictures = expand_sources(f"skimage:{name}" for name in PHOTOGRAPHS)
    torch_found, onnx_found = (detector.detect(pictures, conf=conf) for detector in pair)
    for found, twin in zip(torch_found, onnx_found, strict=True):
        assert found.labels.tolist() == twin.labels.tolist()
        np.testing.assert_allclose(found.scores, twin.scores, atol=1e-3)
        assert (overlaps(found, twin) >= 0.999).all()
    assert sum(map(len, torch_found)) >= (60 if conf == 0.01 else 4)


def test_the_file_was_written_of_these_weights(pair):
    """Else run tools/ship_onnx.py again. It needs no photographs, and is never skipped."""
    in_torch, in_onnx = pair
    for fact in ("name", "names", "input_spec", "masks"):
        assert getattr(in_torch, fact) == getattr(in_onnx, fact)
    assert in_torch.metadata["licence"] == in_onnx.metadata["licence"]
    height, width = in_torch.input_spec.size
    noise = np.random.default_rng(0).integers(0, 256, (2, height // 16, width // 16, 3), np.uint8)
    pixels = noise.repeat(16, 1).repeat(16, 2)
    everything = Options(conf=0, iou=1, max_det=500)
    both = [detector.find(pixels, everything) for detector in pair]
    for found, twin in zip(*both, strict=True):
        assert len(found.scores) == len(twin.scores) == 500
        np.testing.assert_allclose(found.scores, twin.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes[:5], twin.boxes[:5], atol=0.01)


def test_a_path_of_the_file_is_as_good_as_the_name():
    path = shipped_onnx("vovdet_nano.voc")
    assert isinstance(path, Path)
    assert load_detector(path).names == load_detector("vovdet_nano.voc").names
