import math

import pytest
import torch

from vovnet.errors import VovnetError
from vovnet.models import create_detector
from vovnet.train import defaults
from vovnet.train.defaults import bytes_per_image, settle
from vovnet.train.recipe import Recipe, recipe_from_dict

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(model: str = "vovdet_nano", **values) -> Recipe:
    return recipe_from_dict({"model": model, "data": ["a"], "amp": "off", **values})


def test_nothing_is_left_open():
    settled = settle(recipe(amp="auto"), 1000, CPU)
    assert settled.amp in ("bf16", "off")
    assert None not in (settled.batch, settled.lr, settled.workers, settled.epochs)
    assert settled.threads is not None
    assert settle(settled, 1000, CPU) == settled


def test_the_input_side_stands_in_the_recipe():
    detector = create_detector("vovdet_nano", ("a",))
    assert settle(recipe(), 8, CPU, detector).imgsz == detector.input_spec.size[0]
    assert settle(recipe(imgsz=96), 8, CPU, detector).imgsz == 96


def test_what_is_said_stays():
    given = recipe(batch=6, accumulate=2, lr=0.5, workers=3, threads=2, epochs=2)
    assert settle(given, 1000, CPU) == given


@pytest.mark.parametrize("length", [{"steps": 7}, {"minutes": 3.0}])
def test_a_length_given_otherwise_needs_no_epochs(length):
    assert settle(recipe(**length), 1000, CPU).epochs is None


def test_few_images_give_more_epochs_and_smaller_batches():
    few, many = (settle(recipe(), images, CPU) for images in (50, 50_000))
    assert (few.epochs, many.epochs) == (300, 12)
    assert (few.batch, many.batch) == (6, 16)
    assert settle(recipe(), 3, CPU).batch == 2
    assert settle(recipe(batch=32), 5, CPU).batch == 5


def test_fine_tuning_is_shorter_and_gentler():
    scratch = settle(recipe(), 2000, CPU)
    tuned = settle(recipe(weights="vovdet_nano.voc"), 2000, CPU)
    assert tuned.epochs == scratch.epochs / 4
    assert tuned.lr == pytest.approx(0.3 * scratch.lr)


def test_optimisers_have_rates_of_their_own():
    muon, adamw, sgd = (settle(recipe(optimizer=o), 1000, CPU).lr for o in ("muon", "adamw", "sgd"))
    assert adamw < muon < sgd
    assert settle(recipe(optimizer="adamw", lr=0.5), 1000, CPU).lr == 0.5


def test_families_differ():
    assert settle(recipe("dsod300-vovnet27_slim"), 5000, CPU).batch == 8
    assert settle(recipe("maskrcnn-vovnet19_slim"), 5000, CPU).batch == 4


def test_workers_follow_the_machine(monkeypatch):
    for cores, on_cpu, on_gpu in ((1, 0, 1), (2, 0, 1), (16, 2, 15), (128, 8, 16)):
        monkeypatch.setattr(defaults, "usable_cores", lambda cores=cores: cores)
        assert settle(recipe(), 100, CPU).workers == on_cpu
        assert settle(recipe(), 100, CUDA).workers == on_gpu
    monkeypatch.setattr(defaults, "processes_here", lambda: 8)
    assert settle(recipe(), 100, CUDA).workers == 15


def test_batches_are_shared_out_evenly(monkeypatch):
    assert settle(recipe(accumulate=3), 1000, CPU).batch == 15
    monkeypatch.setattr(defaults, "world_size", lambda: 2)
    assert settle(recipe(accumulate=3), 1000, CPU).batch == 12
    with pytest.raises(
        VovnetError, match="batch 15 of 1000 images cannot be shared by 2 processes in 3"
    ):
        settle(recipe(accumulate=3, batch=15), 1000, CPU)


def test_memory_decides_in_how_many_parts_a_step_is_computed(monkeypatch):
    detector = create_detector("vovdet_nano", ("a", "b"))
    need = bytes_per_image(detector, 256)
    for room, parts in ((math.inf, 1), (16, 1), (15, 2), (5, 4), (0.1, 8)):
        free = room * need / 0.6
        monkeypatch.setattr(defaults, "free_memory", lambda device, free=free: free)
        settled = settle(recipe(), 1000, CPU, detector)
        assert (settled.batch, settled.accumulate) == (16, parts)
    assert settle(recipe(accumulate=1), 1000, CPU, detector).accumulate == 1


@pytest.mark.parametrize("name", ["vovdet_nano", "dsod300-vovnet27_slim"])
def test_the_memory_of_an_image_is_near_what_a_step_takes(name):
    detector = create_detector(name, ("a", "b"))
    size = detector.input_spec.size[0]
    images = torch.randn(2, 3, size, size)
    saved = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = detector(images)
    own = {p.data_ptr() for p in detector.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    total = sum(n for place, n in storages.items() if place not in own)
    counted = bytes_per_image(detector, size)
    assert isinstance(counted, int)
    assert counted == pytest.approx(total, rel=0.02)
    del outputs


@pytest.mark.parametrize("together", [{"batch": 4, "accumulate": 2}, {"compile": True}])
def test_graphs_that_cannot_be_recorded_are_told_of(together):
    with pytest.raises(VovnetError, match=r"recipe: graphs .*; (leave|keep)"):
        settle(recipe(graphs=True, **together), 1000, CPU)
