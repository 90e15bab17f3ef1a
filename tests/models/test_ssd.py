"""What the released Caffe models of SSD300-MobileNet and Pelee304 lay their priors out by."""

import pytest

from vovnet.boxes.anchors import PriorLevel
from vovnet.models import create_detector
from vovnet.models.ssd import SPECS

LONG, WIDE = (2.0,), (2.0, 3.0)


def test_the_priors_of_pelee():
    """10 to 105 % of 304 pixels; two levels read the map of stride 16."""
    sides = [3.04 * percent for percent in (10, 20, 37, 54, 71, 88, 105)]
    cells = (19, 19, 10, 5, 3, 1)
    levels = SPECS["pelee304"].levels((19, 10))
    wanted = [
        PriorLevel(n, 304 / n, pytest.approx(least), pytest.approx(most), WIDE)
        for n, least, most in zip(cells, sides[:-1], sides[1:], strict=True)
    ]
    assert list(levels) == wanted
    assert sides[0] == pytest.approx(30.4)


def test_the_priors_of_ssd300_on_mobilenet():
    """The first level has one square of 60 pixels, and no ratio of 3."""
    sides = (60, 105, 150, 195, 240, 285, 300)
    cells = (19, 10, 5, 3, 2, 1)
    wanted = [
        PriorLevel(n, 300 / n, least, most, WIDE)
        for n, least, most in zip(cells, sides[:-1], sides[1:], strict=True)
    ]
    wanted[0] = PriorLevel(19, 300 / 19, 60, None, LONG)
    assert list(SPECS["ssd300"].levels((19, 10))) == wanted


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("ssd300-mobilenet_v1", (127.5, 127.5, 127.5), 127.5),
        ("pelee304-peleenet", (123.68, 116.78, 103.94), 58.8),
    ],
)
def test_inputs_are_normalised_as_released(name, mean, std):
    spec = create_detector(name, ("a",)).input_spec
    assert (spec.fit, spec.mean, spec.std) == ("warp", mean, (std,) * 3)
    assert spec.size == (SPECS[name.partition("-")[0]].side,) * 2
