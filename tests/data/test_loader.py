import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from vovnet.data.cache import ImageCache
from vovnet.data.draws import EpochBatches, EpochPlan
from vovnet.data.loader import TrainSamples, train_loader
from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.errors import DataError


def samples(
    dataset: Dataset, augment=None, *, seed: int = 0, budget: float = float("inf")
) -> TrainSamples:
    cache = ImageCache(dataset.records, 96, budget)
    return TrainSamples(dataset, cache, augment or ZoomAugment(), seed, difficult=False)


def loaded(made: TrainSamples, workers: int, epochs: tuple[int, ...], mosaic: float) -> list:
    source = EpochBatches(
        len(made.dataset), 4, 0, lambda epoch: EpochPlan(32 + 32 * (epoch % 2), mosaic)
    )
    found = []
    with closing(train_loader(made, source, workers)) as loader:
        for epoch in epochs:
            source.epoch = epoch
            found.append([(b.pixels.clone(), list(b.targets)) for b in loader])
    assert multiprocessing.active_children() == []
    return found


def assert_same(one: list, two: list) -> None:
    assert len(one) == len(two) > 0
    for (pixels, targets), (other, others) in zip(one, two, strict=True):
        assert torch.equal(pixels, other)
        for target, twin in zip(targets, others, strict=True):
            assert torch.equal(target.boxes, twin.boxes)
            assert torch.equal(target.labels, twin.labels)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.parametrize("augment", [ZoomAugment(), SSDAugment()], ids=["zoom", "ssd"])
def test_samples_do_not_depend_on_workers_or_on_what_came_before(voc, augment):
    made = samples(open_dataset(voc, "train"), augment)
    here = loaded(made, 0, (0, 1), 0.5)
    there = loaded(made, 1, (0, 1), 0.5)
    for one, two in zip(here, there, strict=True):
        assert_same(one, two)
    assert_same(loaded(made, 0, (1,), 0.5)[0], here[1])
    assert [batch[0].shape[1] for epoch in here for batch in epoch] == [32, 32, 64, 64]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_another_thread_may_ask_for_the_batches(voc):
    """As a GPU's loader does; workers that it forked itself would end with an error."""
    source = EpochBatches(8, 4, 0, lambda _: EpochPlan(32))
    with (
        closing(train_loader(samples(open_dataset(voc, "train")), source, 2)) as loader,
        ThreadPoolExecutor(1) as pool,
    ):
        batches = iter(loader)
        assert len(multiprocessing.active_children()) == 2
        assert len(pool.submit(list, batches).result()) == 2
    assert multiprocessing.active_children() == []


def test_the_seed_changes_the_samples(voc):
    dataset = open_dataset(voc, "train")
    one, two = (loaded(samples(dataset, seed=seed), 0, (0,), 0.0)[0] for seed in (0, 1))
    assert not torch.equal(one[0][0], two[0][0])


def test_two_copies_of_a_picture_are_augmented_each_in_its_own_way(voc):
    dataset = open_dataset(voc, "train")
    twice = replace(dataset, records=dataset.records[:1] * 4)
    [[(pixels, _)]] = loaded(samples(twice), 0, (0,), 0.0)
    assert len({image.numpy().tobytes() for image in pixels}) == 4


def test_samples_do_not_depend_on_how_much_fits_into_memory(voc):
    dataset = open_dataset(voc, "train")
    caches = [ImageCache(dataset.records, 96, budget=budget) for budget in (float("inf"), 0)]
    made = [TrainSamples(dataset, cache, ZoomAugment(), 0, difficult=False) for cache in caches]
    assert_same(loaded(made[0], 0, (0,), 0.5)[0], loaded(made[1], 0, (0,), 0.5)[0])


def test_batches_have_the_networks_form(voc):
    made = samples(open_dataset(voc, "train"))
    [epoch] = loaded(made, 0, (0,), 1.0)
    assert len(epoch) == 2
    for pixels, targets in epoch:
        assert pixels.shape == (4, 32, 32, 3)
        assert pixels.dtype == torch.uint8
        assert len(targets) == 4
        for boxes, labels, masks, _, scores in targets:
            assert (masks, scores) == (None, None)
            assert boxes.shape == (len(labels), 4)
            assert (boxes.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert sum(len(target.labels) for _, targets in epoch for target in targets) > 8


def test_mosaics_show_several_images(voc):
    made = samples(open_dataset(voc, "train"))
    counts = {
        mosaic: sum(
            len(target.labels)
            for epoch in loaded(made, 0, tuple(range(4)), mosaic)
            for _, targets in epoch
            for target in targets
        )
        for mosaic in (0.0, 1.0)
    }
    assert counts[1.0] > 1.5 * counts[0.0]


@pytest.mark.parametrize("augment", [ZoomAugment(), SSDAugment()], ids=["zoom", "ssd"])
def test_mixed_pictures_hold_the_objects_of_both(voc, augment):
    made = samples(open_dataset(voc, "train"), augment)
    found = {}
    for mixup in (0.0, 1.0):
        source = EpochBatches(8, 4, 0, lambda _, mixup=mixup: EpochPlan(64, 0.0, mixup))
        found[mixup] = [
            target for batch in train_loader(made, source, 0) for target in batch.targets
        ]
    plain, mixed = (found[mixup] for mixup in (0.0, 1.0))
    # The first picture is the very same: mixing is drawn after everything else.
    for target, both in zip(plain, mixed, strict=True):
        assert torch.equal(both.boxes[: len(target.boxes)], target.boxes)
        assert torch.equal(both.labels[: len(target.labels)], target.labels)
    assert sum(len(t.labels) for t in mixed) > 1.5 * sum(len(t.labels) for t in plain)


@pytest.fixture
def vanishing(make_voc, tmp_path) -> TrainSamples:
    """Samples of a set that is read each time, and of which an image has gone since the start."""
    made = samples(open_dataset(make_voc(tmp_path / "voc"), "train"), budget=0)
    made.dataset.records[3].path.unlink()
    return made


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_during_the_run_is_one_line(vanishing, workers):
    with pytest.raises(DataError) as caught:
        loaded(vanishing, workers, (0,), 0.0)
    [line] = str(caught.value).splitlines()
    assert "train03.png: no such file" in line
    assert line.endswith("then go on with --resume")
