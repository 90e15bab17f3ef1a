from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vovnet.data._common import make_record
from vovnet.data.loader import (
    EpochBatches,
    ImageCache,
    TrainSamples,
    train_loader,
)
from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.errors import ImageError


def batches(length: int, batch: int, *, seed: int = 0, mosaic: float = 0.0) -> EpochBatches:
    return EpochBatches(length, batch, seed, lambda epoch: (64 + 32 * epoch, mosaic))


def drawn(source: EpochBatches, epoch: int) -> list[list[tuple]]:
    source.epoch = epoch
    return [[tuple(draw) for draw in batch] for batch in source]


def test_every_index_once():
    source = batches(12, 4)
    for epoch in range(3):
        found = drawn(source, epoch)
        assert len(found) == len(source) == 3
        assert [len(batch) for batch in found] == [4, 4, 4]
        assert sorted(index for batch in found for _, index, _, _ in batch) == list(range(12))


def test_a_last_smaller_batch_is_left_out_and_nothing_drawn_twice():
    source = batches(14, 4)
    indices = [index for batch in drawn(source, 0) for _, index, _, _ in batch]
    assert len(source) == 3
    assert len(set(indices)) == len(indices) == 12
    # Another epoch leaves out others.
    left_out = [set(range(14)) - {d[1] for b in drawn(source, e) for d in b} for e in range(6)]
    assert len(set(map(frozenset, left_out))) > 1


def test_a_batch_larger_than_the_dataset_is_the_dataset():
    source = batches(3, 16)
    [only] = drawn(source, 0)
    assert len(source) == 1
    assert sorted(index for _, index, _, _ in only) == [0, 1, 2]


def test_the_plan_decides_size_and_mosaics():
    source = batches(400, 40, mosaic=0.25)
    first, third = drawn(source, 0), drawn(source, 2)
    assert {(epoch, size) for batch in first for epoch, _, size, _ in batch} == {(0, 64)}
    assert {(epoch, size) for batch in third for epoch, _, size, _ in batch} == {(2, 128)}
    share = np.mean([mosaic for batch in first for *_, mosaic in batch])
    assert share == pytest.approx(0.25, abs=0.08)
    assert not any(d[3] for batch in drawn(batches(40, 4), 0) for d in batch)
    assert all(d[3] for batch in drawn(batches(40, 4, mosaic=1.0), 0) for d in batch)


def test_seed_and_epoch_decide_the_order():
    one, two = batches(40, 4, mosaic=0.5), batches(40, 4, mosaic=0.5)
    drawn(two, 5)  # what was drawn before must not matter
    assert drawn(one, 3) == drawn(two, 3)
    order = [[d[1] for batch in drawn(one, epoch) for d in batch] for epoch in (3, 4)]
    assert order[0] != order[1]
    other = [d[1] for batch in drawn(batches(40, 4, seed=1), 3) for d in batch]
    assert other != order[0]


def samples(dataset: Dataset, augment=None, *, seed: int = 0, longest: int = 96) -> TrainSamples:
    cache = ImageCache(dataset.records, longest)
    return TrainSamples(dataset, cache, augment or ZoomAugment(), seed, difficult=False)


def loaded(made: TrainSamples, workers: int, epochs: tuple[int, ...], mosaic: float) -> list:
    source = EpochBatches(len(made.dataset), 4, 0, lambda epoch: (32 + 32 * (epoch % 2), mosaic))
    loader = train_loader(made, source, workers)
    found = []
    for epoch in epochs:
        source.epoch = epoch
        found.append([(b.pixels.clone(), list(b.targets)) for b in loader])
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
        for boxes, labels, masks in targets:
            assert masks is None
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


def record_of(path: Path, size: tuple[int, int], boxes: list[tuple], **marks):
    Image.new("RGB", size[::-1], "white").save(path)
    rows = [(box, label) for label, box in enumerate(boxes)]
    return make_record(path, 1, size, rows, **marks)


def test_boxes_scale_with_the_cached_image(tmp_path):
    record = record_of(tmp_path / "a.png", (200, 401), [(0, 0, 401, 200), (100.25, 50, 200.5, 100)])
    cached = ImageCache([record], longest=100).sample(0, record, False)
    assert cached.pixels.shape == (50, 100, 3)
    assert np.allclose(cached.boxes, [[0, 0, 100, 50], [25, 12.5, 50, 25]])
    whole = ImageCache([record], longest=401).sample(0, record, False)
    assert whole.pixels.shape == (200, 401, 3)
    assert np.array_equal(whole.boxes, record.boxes)


def test_small_and_thin_images_are_not_enlarged_nor_lost(tmp_path):
    records = [
        record_of(tmp_path / "a.png", (1, 1), [(0, 0, 1, 1)]),
        record_of(tmp_path / "b.png", (1, 3000), [(0, 0, 3000, 1)]),
    ]
    cache = ImageCache(records, longest=100)
    assert cache.sample(0, records[0], False).pixels.shape == (1, 1, 3)
    thin = cache.sample(1, records[1], False)
    assert thin.pixels.shape == (1, 100, 3)
    assert np.allclose(thin.boxes, [[0, 0, 100, 1]])


def test_crowds_never_and_difficult_only_when_asked(tmp_path):
    record = record_of(
        tmp_path / "a.png",
        (40, 40),
        [(0, 0, 9, 9), (1, 1, 9, 9), (2, 2, 9, 9), (3, 3, 9, 9)],
        difficult=[False, True, False, True],
        crowd=[False, False, True, True],
    )
    cache = ImageCache([record], longest=40)
    plain, asked = (cache.sample(0, record, difficult) for difficult in (False, True))
    assert plain.labels.tolist() == [0]
    assert plain.boxes.tolist() == [[0, 0, 9, 9]]
    assert asked.labels.tolist() == [0, 1]
    assert asked.boxes.tolist() == [[0, 0, 9, 9], [1, 1, 9, 9]]


def test_an_unreadable_image_stops_with_its_name(tmp_path):
    record = record_of(tmp_path / "a.png", (40, 40), [])
    record.path.write_bytes(record.path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"a\.png: "):
        ImageCache([record], longest=40)
