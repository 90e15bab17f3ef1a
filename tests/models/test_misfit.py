"""The likely cause, from real networks' tensors."""

import pytest
import torch

from vovnet.models import create_detector, create_model
from vovnet.models.misfit import misfit, not_finite

Shapes = dict[str, torch.Size]


def shapes(name: str, num_classes: int | None = 0, **changes) -> Shapes:
    with torch.device("meta"):
        return {
            k: v.shape for k, v in create_model(name, num_classes, **changes).state_dict().items()
        }


def renamed(tensors: Shapes, prefix: str) -> Shapes:
    return {prefix + key: shape for key, shape in tensors.items()}


PLAIN = shapes("vovnet27_slim")
DETECTOR = shapes("dsod300-vovnet27_slim", 21)
NETWORK = {key.removeprefix("network."): shape for key, shape in DETECTOR.items()}


def test_equal_tensors_fit():
    assert misfit(PLAIN, shapes("vovnet27_slim")) is None


@pytest.mark.parametrize(
    ("own", "given", "cause"),
    [
        (PLAIN, renamed(PLAIN, "module."), "saved them with 'module.' before the names"),
        (PLAIN, renamed(PLAIN, "_orig_mod."), "torch.compile saved them"),
        (PLAIN, renamed(PLAIN, "ema.") | PLAIN.fromkeys(["step"]), "averaged weights"),
        (NETWORK, DETECTOR, "a detector as a whole saved them with 'network.'"),
        (NETWORK, PLAIN, "they are a backbone's alone"),
        (DETECTOR, NETWORK, "they are a network's alone"),
        (shapes("vovnet39_v2"), shapes("ese_vovnet39b"), "more modules of the model than of the"),
        (shapes("ese_vovnet39b"), shapes("vovnet39_v2"), "more modules of the file than of the"),
        (PLAIN, shapes("vovnet27_slim", norm="group"), "the file normalises by groups"),
        (shapes("vovnet27_slim", norm="group"), PLAIN, "the model normalises by groups"),
        (PLAIN, shapes("vovnet27_slim", norm="frozen"), "batch norms were frozen"),
        (NETWORK, renamed(shapes("dsod300-vovnet27_slim", 3), ""), "saved them with 'network.'"),
        (DETECTOR, shapes("dsod300-vovnet27_slim", 3), "another number of classes"),
        (PLAIN, shapes("vovnet39"), "another model's"),
        (PLAIN, shapes("resnet50"), "another model's"),
        (PLAIN, {}, "another model's"),
    ],
)
def test_likely_cause(own, given, cause):
    message = misfit(own, given)
    assert cause in message.partition("likely cause: ")[2]
    assert "\n" not in message
    assert len(message) < 2500


def test_ten_tensors_of_a_kind_are_listed():
    message = misfit(PLAIN, {"bogus": torch.Size((3,))})
    missing = sorted(PLAIN)
    start = f"tensors {len(missing)} missing ({', '.join(missing[:10])}, ...); 1 extra (bogus)"
    assert message.startswith(start)


def test_only_numbers_that_are_none_are_named():
    state = create_detector("vovdet_nano", ("a",)).network.state_dict()
    assert not_finite(state) is None
    huge = torch.full((4,), 3e38)  # its sum overflows, none of it does
    assert not_finite({"huge": huge, "count": torch.zeros((), dtype=torch.int64)}) is None
    bad = {"a.weight": torch.tensor([1.0, float("nan")]), "b": torch.tensor(float("inf")).half()}
    assert not_finite(bad | {"huge": huge}).startswith(
        "2 tensors hold NaN or infinity (a.weight, b)"
    )
