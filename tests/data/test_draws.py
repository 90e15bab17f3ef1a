import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vovnet.data.draws import Draw, EpochBatches, EpochPlan, repeat_factors
from vovnet.data.record import make_record
from vovnet.errors import VovnetError

examples = settings(deadline=None, max_examples=60)


def batches(
    length: int, batch: int, *, seed: int = 0, mosaic: float = 0.0, mixup: float = 0.0, **more
) -> EpochBatches:
    return EpochBatches(
        length, batch, seed, lambda e: EpochPlan(64 + 32 * e, mosaic, mixup), **more
    )


def drawn(source: EpochBatches, epoch: int) -> list[list[Draw]]:
    source.epoch = epoch
    return list(source)


def indices(found: list[list[Draw]]) -> list[int]:
    return [draw.index for batch in found for draw in batch]


def test_every_index_once():
    source = batches(12, 4)
    for epoch in range(3):
        found = drawn(source, epoch)
        assert len(found) == len(source) == 3
        assert [len(batch) for batch in found] == [4, 4, 4]
        assert sorted(indices(found)) == list(range(12))


def test_a_last_smaller_batch_is_left_out_and_nothing_drawn_twice():
    source = batches(14, 4)
    found = indices(drawn(source, 0))
    assert len(source) == 3
    assert len(set(found)) == len(found) == 12
    # Another epoch leaves out others.
    left_out = [set(range(14)) - set(indices(drawn(source, epoch))) for epoch in range(6)]
    assert len(set(map(frozenset, left_out))) > 1


def test_a_batch_larger_than_the_dataset_is_the_dataset():
    source = batches(3, 16)
    [only] = drawn(source, 0)
    assert len(source) == 1
    assert sorted(draw.index for draw in only) == [0, 1, 2]


def test_the_plan_decides_size_mosaics_and_mixed_pictures():
    source = batches(400, 40, mosaic=0.25, mixup=0.4)
    first, third = drawn(source, 0), drawn(source, 2)
    assert {(d.epoch, d.size) for batch in first for d in batch} == {(0, 64)}
    assert {(d.epoch, d.size) for batch in third for d in batch} == {(2, 128)}
    draws = [draw for batch in first for draw in batch]
    assert np.mean([draw.mosaic for draw in draws]) == pytest.approx(0.25, abs=0.08)
    assert np.mean([draw.mixup for draw in draws]) == pytest.approx(0.4, abs=0.08)
    assert 0 < np.mean([draw.mosaic and draw.mixup for draw in draws]) < 0.2
    assert not any(d.mosaic or d.mixup for batch in drawn(batches(40, 4), 0) for d in batch)
    every = drawn(batches(40, 4, mosaic=1.0, mixup=1.0), 0)
    assert all(d.mosaic and d.mixup for batch in every for d in batch)


def test_seed_and_epoch_decide_the_order():
    one, two = batches(40, 4, mosaic=0.5), batches(40, 4, mosaic=0.5)
    drawn(two, 5)  # what was drawn before must not matter
    assert drawn(one, 3) == drawn(two, 3)
    assert indices(drawn(one, 3)) != indices(drawn(one, 4))
    assert indices(drawn(batches(40, 4, seed=1), 3)) != indices(drawn(one, 3))


@examples
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 40), st.integers(0, 9), st.booleans())
def test_processes_share_the_batches_of_a_single_one(world, each, more, epoch, repeated):
    length = world * each + more
    repeats = 1 + np.arange(length) % 5 / 4 if repeated else None
    options = {"mosaic": 0.5, "mixup": 0.5, "repeats": repeats}
    alone = batches(length, world * each, **options)
    shares = [batches(length, world * each, rank=r, world=world, **options) for r in range(world)]
    assert all(len(share) == len(alone) for share in shares)
    together = zip(*(drawn(share, epoch) for share in shares), strict=True)
    assert [[d for part in parts for d in part] for parts in together] == drawn(alone, epoch)


@pytest.mark.parametrize(
    ("length", "batch", "world", "message"),
    [
        (100, 15, 2, "batch 15 cannot be shared by 2 processes evenly; give --batch 14 or 16"),
        (100, 1, 3, "give --batch 3"),
        (3, 8, 4, "3 images for 4 processes"),
    ],
)
def test_what_cannot_be_shared_is_refused(length, batch, world, message):
    with pytest.raises(VovnetError, match=message):
        batches(length, batch, rank=0, world=world)


def test_a_small_set_is_shared_as_far_as_it_can_be():
    found = [drawn(batches(7, 16, rank=rank, world=2), 0) for rank in (0, 1)]
    assert [len(batch) for part in found for batch in part] == [3, 3]
    assert len(set(indices(found[0]) + indices(found[1]))) == 6


@pytest.mark.parametrize("skip", [0, 1, 3, 4])
def test_skipped_batches_are_those_at_the_start(skip):
    whole, source = drawn(batches(16, 4, mosaic=0.5), 2), batches(16, 4, mosaic=0.5)
    source.skip = skip
    assert drawn(source, 2) == whole[skip:]
    assert len(source) == 4  # an epoch's length is what it was


@examples
@given(st.lists(st.floats(1.0, 4.0), min_size=1, max_size=30), st.integers(0, 5), st.integers(0, 9))
def test_images_repeat_as_often_as_they_should(repeats, seed, epoch):
    source = batches(len(repeats), 1, seed=seed, repeats=repeats)
    draws = [batch[0] for batch in drawn(source, epoch)]
    assert drawn(source, epoch) == drawn(
        batches(len(repeats), 1, seed=seed, repeats=repeats), epoch
    )
    assert len(draws) == len(source)
    assert abs(len(source) - sum(repeats)) < 1
    for index, wanted in enumerate(repeats):
        copies = sorted(draw.copy for draw in draws if draw.index == index)
        # One copy may be what the epoch's fixed length leaves out.
        assert math.floor(wanted) - 1 <= len(copies) <= math.ceil(wanted)
        assert len(set(copies)) == len(copies)


def test_over_many_epochs_fractions_are_met():
    repeats = np.array([1.0, 1.25, 1.5, 2.75, 1.0, 3.1])
    source = batches(6, 1, repeats=repeats)
    found = [indices(drawn(source, epoch)) for epoch in range(600)]
    assert {len(one) for one in found} == {len(source)} == {10}
    # 10.6 wanted, 10 given: everyone a little less.
    means = np.bincount(np.concatenate(found)) / 600
    assert means == pytest.approx(repeats * 10 / 10.6, abs=0.08)
    assert len({tuple(sorted(one)) for one in found}) > 3


def test_copies_of_an_image_have_randomness_of_their_own():
    draws = [Draw(0, 5, 64), Draw(0, 5, 64, copy=1), Draw(1, 5, 64), Draw(0, 6, 64)]
    assert len({draw.generator(0).random() for draw in draws}) == 4
    assert draws[0].generator(0).random() == draws[0].generator(0).random()
    assert draws[0].generator(0).random() != draws[0].generator(1).random()


def record(labels: list[int], difficult: list[bool] | None = None):
    rows = [((0.0, 0.0, 9.0, 9.0), label) for label in labels]
    return make_record(Path("a.png"), 1, (20, 20), rows, difficult=difficult)


def test_repeat_factors_follow_the_formula():
    # Class 0 in eight of ten images, class 1 in two, class 3 in one, class 2 in none.
    records = [record([0, 0]) for _ in range(7)] + [record([0, 1]), record([1, 3, 3]), record([])]
    factors = repeat_factors(records, 0.4)
    rare, rarest = math.sqrt(0.4 / 0.2), math.sqrt(0.4 / 0.1)
    assert factors == pytest.approx([1.0] * 7 + [rare, rarest, 1.0])
    assert repeat_factors(records, 0.05).tolist() == [1.0] * 10


def test_what_is_not_trained_on_does_not_make_an_image_rare():
    records = [record([0]), record([0]), record([0]), record([0, 1], [False, True])]
    assert repeat_factors(records, 0.5).tolist() == [1.0] * 4
    asked = repeat_factors(records, 0.5, difficult=True)
    assert asked == pytest.approx([1.0] * 3 + [math.sqrt(0.5 / 0.25)])
