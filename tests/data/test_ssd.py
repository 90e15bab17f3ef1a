"""What SSD's pipeline leaves of a picture and its objects, by hand."""

import numpy as np
import pytest

from vovnet.data import ssd
from vovnet.data.place import Layout, Place
from vovnet.data.sample import Sample
from vovnet.data.ssd import Distortion, SSDAugment

MEAN = (123, 117, 104)  # of ImageNet, red first


def sample(*boxes: tuple[float, float, float, float]) -> Sample:
    """A white picture of 40×40 pixels; labels count the boxes."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(np.full((40, 40, 3), 255, np.uint8), corners, np.arange(len(boxes)))


def shown(sample: Sample, scale: float, offset: tuple[float, float]) -> Sample:
    """The sample at a scale and an offset in an input of 40×40, colours and sides as they are."""
    place = Place((0, 0, 40, 40), (scale, scale), offset)
    layout = Layout(40, (place,), False, False, Distortion())
    return SSDAugment().render([sample], layout)


def test_around_an_expanded_picture_lies_the_mean():
    result = shown(sample((0, 0, 40, 40)), 0.25, (20, 5))
    inside = np.zeros((40, 40), bool)
    inside[5:15, 20:30] = True
    assert (result.pixels[inside] == 255).all()
    assert (result.pixels[~inside] == MEAN).all()
    assert result.boxes.tolist() == [[20, 5, 30, 15]]


def test_half_of_the_pictures_are_expanded_up_to_four_times(monkeypatch):
    """Seen with the whole canvas as the only crop: the image is a ratio smaller and lies in it."""
    monkeypatch.setattr(ssd, "_SAMPLERS", (ssd._WHOLE,))
    places = []
    for seed in range(300):
        places += SSDAugment().layout([sample()], 40, np.random.default_rng(seed)).places
    ratios = 1 / np.array([place.scale for place in places])
    assert (ratios[:, 0] == ratios[:, 1]).all()
    assert np.mean(ratios == 1) == pytest.approx(0.5, abs=0.1)
    expanded = ratios[ratios[:, 0] > 1, 0]
    assert expanded.mean() == pytest.approx(2.5, abs=0.25)
    assert expanded.min() < 1.1
    assert 3.9 < expanded.max() <= 4.0
    corners = np.array([place.offset for place in places])
    assert (corners >= 0).all()
    assert (corners + 40 / ratios <= 40 + 1e-9).all()
    free = 40 - 40 / ratios[ratios[:, 0] > 2]
    assert (corners[ratios[:, 0] > 2] / free).mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("axis", [0, 1])
def test_objects_stay_whose_centres_are_seen(axis):
    """The crop begins at 20 and ends at 30, enlarged to 40; a centre on its border is outside."""
    ends = [(12, 29), (11, 29), (10, 28), (22, 37.5), (22, 38), (25, 45), (23, 26), (23, 23.25)]
    boxes = np.zeros((len(ends), 4), np.float32)
    boxes[:, [axis, axis + 2]] = ends
    boxes[:, [1 - axis, 3 - axis]] = (22, 28)
    result = shown(sample(*boxes), 4.0, (-80, -80))
    # Centres at 20.5, 20, 19, 29.75, 30, 35, 24.5; the last is a pixel wide and too small.
    assert result.labels.tolist() == [0, 3, 6]
    along = result.boxes[:, [axis, axis + 2]]
    assert along.tolist() == [[0, 36], [8, 40], [12, 24]]  # clipped to what is seen
    assert (result.boxes[:, [1 - axis, 3 - axis]] == (8, 32)).all()
