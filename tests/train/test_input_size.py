"""The input side that a run chooses by its data, and by its time."""

import math

import numpy as np
import pytest
import torch

from vovnet.data.open import open_dataset
from vovnet.models import create_detector
from vovnet.train import input_size
from vovnet.train.input_size import choose_side, fit_input
from vovnet.train.recipe import recipe_from_dict

CPU = torch.device("cpu")
ALLOWED = [256, 320, 384, 448, 512, 640]


def always(side: int) -> float:
    return math.inf


def in_time(side: int) -> float:
    return 8000 * (256 / side) ** 2


def test_objects_of_a_twentieth_ask_for_16_pixels():
    sides = np.full(100, 0.05)  # 12.8 pixels at 256
    fit = choose_side(sides, ALLOWED, 1000, always)
    assert fit.side == 320
    assert "at 256, the model's own, 100% of the objects are under 16 pixels" in fit.line
    assert "--imgsz 256 trains 1.6 times as fast" in fit.line


def test_a_quarter_of_the_objects_may_stay_small():
    sides = np.array([0.01] * 25 + [0.05] * 75)
    assert choose_side(sides, ALLOWED, 1000, always).side == 320


def test_the_largest_is_taken_where_none_is_enough():
    assert choose_side(np.full(9, 0.01), ALLOWED, 1000, always).side == 640


def test_the_time_bounds_it_and_the_line_says_so():
    sides = np.full(100, 0.032)  # 512 would do, for 2000 views
    fit = choose_side(sides, ALLOWED, 3000, in_time)
    assert fit.side == 384
    assert "512 shows more, but the time is too short" in fit.line
    fit = choose_side(sides, ALLOWED, 7000, in_time)
    assert fit.side == 256
    assert fit.line.endswith("give more time, or --imgsz 320")


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ({"imgsz": 96}, 96),
        ({"resolution": [[0.5, 128]]}, 256),
        ({"model": "dsod300-vovnet27_slim"}, 300),  # takes no other
        ({}, 256),  # the pictures show no more than the model's own side
    ],
)
def test_what_is_not_open_stays(make_voc, tmp_path, values, side):
    dataset = open_dataset(make_voc(tmp_path, side=64), "train")
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"]} | values)
    detector = create_detector(recipe.model, dataset.names)
    if recipe.imgsz:
        detector.input_spec = detector.input_spec.with_side(recipe.imgsz, recipe.model)
    assert fit_input(recipe, dataset, detector, CPU) == input_size.Fit(side)


def test_large_pictures_of_small_objects_get_a_larger_input(make_voc, tmp_path, monkeypatch):
    dataset = open_dataset(make_voc(tmp_path, train=2, side=1000), "train")
    detector = create_detector("vovdet_nano", dataset.names)
    monkeypatch.setattr(input_size, "SEEN_WELL", 256.0)  # objects are a quarter of the picture
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"]})
    assert fit_input(recipe, dataset, detector, CPU).side > 256


def test_a_trial_leaves_the_network_as_it_is():
    detector = create_detector("vovdet_nano", ("a",))
    before = {k: v.clone() for k, v in detector.network.state_dict().items()}
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"], "amp": "off", "minutes": 1})
    random = torch.get_rng_state()
    views = input_size._views_in_time(recipe, detector, CPU)
    assert views(256) == pytest.approx(4 * views(512))
    assert 0 < views(512) < math.inf
    assert all(v.equal(before[k]) for k, v in detector.network.state_dict().items())
    assert torch.get_rng_state().equal(random)
