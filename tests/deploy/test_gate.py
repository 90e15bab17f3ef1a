"""What the gate compares, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vovnet.deploy.gate import compare
from vovnet.deploy.sensitivity import most_sensitive
from vovnet.detect.pictures import Picture
from vovnet.detections import Detections
from vovnet.input_spec import InputSpec
from vovnet.models.detector import Detector


class Says:
    """A detector that gives what it is told, one `Detections` a call."""

    def __init__(self, *rows: list[tuple]) -> None:
        self.rows = list(rows)

    def detect(self, picture: Picture, conf: float) -> Detections:
        row = self.rows.pop(0)
        boxes = np.array([r[:4] for r in row], np.float32).reshape(-1, 4)
        return Detections(boxes, [r[4] for r in row], [r[5] for r in row], names=("a", "b"))


ONE = Picture(Image.new("RGB", (100, 100)), (100, 100))


def test_boxes_are_matched_one_to_one():
    first = [(0, 0, 10, 10, 0.9, 0), (20, 20, 40, 40, 0.8, 1), (60, 60, 90, 90, 0.7, 0)]
    other = [(20, 21, 40, 40, 0.75, 1), (0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.6, 0)]
    found = compare(Says(first), Says(other), [ONE])
    assert (found.pictures, found.boxes, found.matched, found.extra) == (1, 3, 2, 1)
    assert found.max_abs_box_error == 1
    assert found.min_iou == pytest.approx(0.95)
    assert found.max_score_error == pytest.approx(0.05)
    assert not found.is_exact()


def test_another_label_is_another_object():
    found = compare(Says([(0, 0, 9, 9, 0.9, 0)]), Says([(0, 0, 9, 9, 0.9, 1)]), [ONE])
    assert (found.matched, found.extra) == (0, 1)


def test_rounding_is_let_pass_and_more_is_not():
    rows = [(10 * i, 0, 10 * i + 9, 9, 0.9, 0) for i in range(5)]
    for change, exact in ((0.0, True), (0.004, True), (0.006, False)):
        moved = [(*row[:4], row[4] - change, row[5]) for row in rows]
        assert compare(Says(rows), Says(moved), [ONE]).is_exact() is exact
    assert compare(Says(rows), Says(rows[:-1]), [ONE]).is_exact()  # one at the threshold
    assert not compare(Says(rows), Says(rows[:-2]), [ONE]).is_exact()
    assert compare(Says([]), Says([]), [ONE]).is_exact()


def test_the_convolution_with_an_outlier_is_the_most_sensitive():
    """One weight a thousand times the others' leaves them no bits of the channel's eight."""
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))).eval()
    network[1].weight.data[:, 0, 0, 0] = 1000 * network[1].weight.abs().max()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    spec = InputSpec((16, 16), "warp", (114.0,) * 3, (58.0,) * 3)
    detector = Detector("x", network, None, None, spec, ("a",))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    ranked = most_sensitive(detector, pixels)
    assert sorted(ranked) == [(0, "0"), (1, "1"), (2, "2")]
    assert ranked[0] == (1, "1")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
