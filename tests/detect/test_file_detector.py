"""A detector in a file: batches of any size, threads, and options as torch has them."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from vovnet.detect.file_detector import FileDetector, open_file_detector
from vovnet.detect.options import Options
from vovnet.detect.sessions import open_onnxruntime
from vovnet.detections import Detections
from vovnet.errors import UnknownNameError, VovnetError
from vovnet.load import load_detector
from vovnet.shipped import shipped_onnx

NAME = "vovdet_nano.voc"
FILE = shipped_onnx(NAME)
assert isinstance(FILE, Path)


def pictures(count: int) -> list[Image.Image]:
    """Shapes in which it finds a few things, each picture others."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 9, 12, 3), np.uint8)
    return [Image.fromarray(one).resize((240, 180), Image.Resampling.BICUBIC) for one in coarse]


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def detector(request) -> FileDetector:
    pytest.importorskip(request.param)
    return load_detector(NAME, runtime=request.param, threads=1)


@pytest.fixture(scope="module")
def eager():
    return load_detector(NAME, runtime="eager")


def same(found: Detections, twin: Detections) -> None:
    assert found.labels.tolist() == twin.labels.tolist()
    np.testing.assert_allclose(found.scores, twin.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, twin.boxes, atol=0.05)


def test_it_says_what_it_is(detector):
    assert detector.name == "vovdet_nano"
    assert len(detector.names) == 20
    assert (detector.precision, detector.masks) == ("fp32", False)
    assert detector.metadata["runtime"] == detector.runtime
    assert detector.version.split(".")[0].isdigit()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conf": 0.005},
        {"conf": 0.005, "iou": 0.2},
        {"conf": 0.005, "iou": 1},
        {"conf": 0.005, "max_det": 3},
        {"conf": 0.005, "agnostic": True},
        {"conf": 0.005, "agnostic": True, "max_det": 3},
        {"conf": 0.001, "iou": 0.1, "agnostic": True},
        {"conf": 0.005, "classes": ["bird", "person"]},
        {"conf": 0.005, "classes": [2], "max_det": 1},
    ],
    ids=str,
)
def test_options_as_in_torch(detector, eager, options):
    seen = pictures(3)
    found, expected = detector.detect(seen, **options), eager.detect(seen, **options)
    assert options == {} or any(map(len, expected))
    for one, twin in zip(found, expected, strict=True):
        same(one, twin)


def test_a_batch_is_as_each_alone(detector):
    seen = pictures(5)
    for together, picture in zip(detector.detect(seen, 0.005), seen, strict=True):
        same(together, detector.detect(picture, 0.005))
    assert detector.detect([]) == []


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_file_for_batches_of_just_so_many(detector, batch):
    """It is fed just these, the last one filled up, and answers for the pictures alone."""
    shapes = []

    def run(feeds):
        shapes.append(len(feeds["images"]))
        return detector.session.run(feeds)

    session = replace(detector.session, run=run)  # the real one, counted
    fixed = FileDetector(replace(detector.sidecar, batch=batch), session)
    seen = pictures(5)
    for one, twin in zip(fixed.detect(seen, 0.005), detector.detect(seen, 0.005), strict=True):
        same(one, twin)
    assert shapes == [batch] * -(-5 // batch)


def test_an_answer_stays_when_the_next_one_comes(detector):
    """Runtimes that own the memory of their results write there again."""
    session, prepare = detector.session, detector.input_spec.prepare
    low = {"conf": np.array(0.001, np.float32)} if "conf" in session.inputs else {}
    first, second = ({"images": prepare(one)[0][None], **low} for one in pictures(2))
    before = session.run(first)
    kept = [part.copy() for part in before]
    assert not np.array_equal(session.run(second)[1], kept[1])
    for part, copy in zip(before, kept, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_eight_threads_find_what_one_finds(detector):
    seen = pictures(8)
    alone = [detector.detect(picture, 0.005) for picture in seen]
    start = Barrier(8)

    def work(index: int) -> list[Detections]:
        start.wait()
        return [detector.detect(seen[index], 0.005) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        for expected, answers in zip(alone, pool.map(work, range(8)), strict=True):
            for answer in answers:
                same(answer, expected)
    assert len({len(found) for found in alone}) > 1  # else a mix-up could not be seen


def test_boxes_that_are_not_finite_are_none():
    boxes = np.array([[[0, 0, 9, 9], [0, 0, np.nan, 9], [0, 0, 9, np.inf], [1, 1, 5, 5]]], "f4")
    scores, labels = np.array([[0.9, 0.8, 0.7, 0.6]], "f4"), np.zeros((1, 4), np.int64)
    real = load_detector(NAME, runtime="onnxruntime")
    answer = [boxes, scores, labels, np.array([3])]
    broken = FileDetector(real.sidecar, replace(real.session, run=lambda _: answer))
    [found] = broken.find(np.zeros((1, 224, 224, 3), np.uint8), Options())
    assert found.scores.tolist() == [np.float32(0.9)]


def test_an_unknown_runtime():
    sidecar = load_detector(NAME, runtime="onnxruntime").sidecar
    with pytest.raises(UnknownNameError, match="unknown runtime 'openvin'"):
        open_file_detector(FILE.parent, replace(sidecar, runtime="openvin"))


def test_a_file_that_the_runtime_cannot_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(VovnetError) as error:
        open_onnxruntime(path, 1)
    assert str(error.value).startswith("model.onnx: onnxruntime cannot run it: ")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "eager"])
def test_two_thousand_calls_leave_memory_flat(runtime):
    """A call that kept its input alone would hold 2,000 times 150 kB, 300 MB."""
    detector = load_detector(NAME, runtime=runtime)
    seen = pictures(4)
    for index in range(200):  # until caches and pools are full
        detector.detect(seen[index % 4])
    before = resident_bytes()
    for index in range(2000):
        detector.detect(seen[index % 4])
    assert resident_bytes() - before < 30e6


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
