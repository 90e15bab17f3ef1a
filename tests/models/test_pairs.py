"""Every listed detector: built, counted, trained on for one step, decoded, saved and loaded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vovnet.boxes.anchors import prior_boxes
from vovnet.detect.options import Options
from vovnet.lab import count
from vovnet.losses import Target
from vovnet.losses.target import InstanceMasks
from vovnet.models import create_detector, list_detectors
from vovnet.models.detector import Detector
from vovnet.models.refinedet import RefineDet, anchor_levels
from vovnet.models.weights import load_detector, save_detector

NAMES = ("square", "bar")
SMALLEST = 64  # pixels, for RefineDet
# Hundreds of megabytes of weights each: with these, all but shapes and counts is left to the slow
# tests. Every family has a lighter backbone too.
HEAVY = (
    *("vovnet39", "vovnet39_v2", "vovnet57", "vovnet57_v2", "vovnet99"),
    *("resnet50", "resnet101", "densenet161", "densenet201", "densenet67_k48"),
)


def is_heavy(name: str) -> bool:
    return name.partition("-")[2] in HEAVY


def shrink(detector: Detector) -> None:
    """Make the input as small as the network takes; the network stays as it is."""
    spec = detector.input_spec
    if spec.multiple is not None:
        detector.input_spec = spec.with_side(spec.multiple, detector.name)
    elif isinstance(detector.network, RefineDet):  # it takes any multiple of 64 with its anchors
        anchors = prior_boxes(anchor_levels(SMALLEST))
        detector.input_spec = replace(spec, size=(SMALLEST, SMALLEST))
        detector.criterion = replace(detector.criterion, anchors=anchors)
        detector.decoder = replace(detector.decoder, anchors=anchors)
    if hasattr(detector.network, "regions"):
        detector.network.regions = 16


def target(side: int, count: int) -> Target:
    """`count` ellipses along the diagonal of a side×side input, each in the middle of its box."""
    corner = torch.arange(count)[:, None] * side / 4 + 2.0
    boxes = torch.cat([corner, corner, corner + side / 4, corner + side / 3], 1)
    shapes = torch.full((count, 2), 8)
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    disc = ((row - 3.5) ** 2 + (column - 3.5) ** 2 < 12).to(torch.uint8)
    masks = InstanceMasks(boxes, shapes, disc.flatten().repeat(count))
    return Target(boxes, torch.arange(count) % len(NAMES), masks)


def images(batch: int, side: int) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def check_training(detector: Detector, side: int) -> None:
    outputs = detector.train()(images(2, side))
    assert all(x.isfinite().all() for x in outputs)
    empty = detector.loss(outputs, [target(side, 0)] * 2, (side, side))
    losses = detector.loss(outputs, [target(side, 3), target(side, 0)], (side, side))
    assert losses.keys() == empty.keys()
    assert all(x.isfinite() and x.ndim == 0 for x in (*empty.values(), *losses.values()))
    assert all(losses[term] > 0 for term in losses)
    sum(losses.values()).backward()
    parameters = dict(detector.named_parameters())
    assert [k for k, p in parameters.items() if p.grad is None] == []
    assert [k for k, p in parameters.items() if not p.grad.isfinite().all()] == []
    detector.zero_grad(set_to_none=True)


def check_decoding(detector: Detector, outputs: Any, side: int) -> None:
    (found,) = detector.decode(outputs, (side, side), Options(0.02, 0.5))
    number = len(found.boxes)
    assert found.boxes.shape == (number, 4)
    assert found.scores.shape == found.labels.shape == (number,)
    assert found.boxes.isfinite().all()
    assert ((found.scores > 0.02) & (found.scores <= 1)).all()
    assert ((found.labels >= 0) & (found.labels < len(NAMES))).all()
    assert (found.masks is not None) == detector.masks
    if found.masks is not None:
        assert len(found.masks) == number
        assert ((found.masks >= 0) & (found.masks <= 1)).all()


def check_round_trip(detector: Detector, outputs: Any, path: Path, side: int) -> None:
    save_detector(path, detector)
    again = load_detector(path, detector.name, fuse=True)
    path.unlink()  # all of them together are gigabytes
    assert again.input_spec == detector.input_spec
    for mine, other in zip(again(images(1, side)), outputs, strict=True):
        assert (mine - other).abs().max() <= 1e-4 * max(1.0, other.abs().max())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Maps this small are not worth a second thread, least of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", list_detectors())
def test_a_detector_is_built_and_counted(name):
    with torch.device("meta"):
        detector = create_detector(name, NAMES).eval()
    seen: list[Any] = []
    detector.register_forward_hook(lambda module, images, outputs: seen.append(outputs))
    counts = count(detector, detector.input_spec.size)
    [outputs] = seen
    assert counts.params == sum(p.numel() for p in detector.parameters())
    assert counts.macs > 100 * counts.params
    criterion = detector.criterion
    priors = getattr(criterion, "priors", getattr(criterion, "anchors", None))
    if priors is not None:  # as many as there are predictions
        assert outputs.offsets.shape == (1, *priors.shape)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if is_heavy(n) else ()) for n in list_detectors()],
)
def test_a_detector_does_all_that_detectors_do(name, tmp_path):
    torch.manual_seed(0)
    detector = create_detector(name, NAMES)
    shrink(detector)
    side = detector.input_spec.size[0]
    check_training(detector, side)
    with torch.inference_mode():
        outputs = detector.eval()(images(1, side))
        check_decoding(detector, outputs, side)
        check_round_trip(detector, outputs, tmp_path / "x.safetensors", side)
