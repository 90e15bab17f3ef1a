"""Random streams: every use of a run's seed has its own."""

import numpy as np
import pytest
import torch

import vovnet.streams
from vovnet.data import draws
from vovnet.data.draws import EpochBatches, EpochPlan
from vovnet.data.loader import Batch
from vovnet.losses import Target, regions
from vovnet.losses.regions import proposal_loss, sample_regions
from vovnet.streams import stream, stream_seed
from vovnet.train.loop import _seeded


def test_numpy_itself_takes_different_numbers_for_one():
    one, other = (np.random.default_rng(seed).integers(2**63) for seed in ((1, 2), (1, 2, 0, 0)))
    assert one == other
    assert stream_seed(1, "a", 2) != stream_seed(1, "a", 2, 0, 0)


def test_a_stream_is_known_by_its_seed_purpose_and_numbers():
    keys = [(0, "a"), (0, "a", 0), (0, "a", 1, 2), (0, "a", 12), (2**32, "a"), (1, "a"), (0, "b")]
    assert len({stream(*key).integers(2**63) for key in keys}) == len(keys)
    assert stream_seed(3, "a", np.int64(5)) == stream_seed(3, "a", 5)


def test_all_streams_of_a_run_differ(monkeypatch):
    """Epochs, samples, and the regions of every image of every step, in parts and processes."""
    used: list[int] = []

    def noted(*key) -> int:
        used.append(stream_seed(*key))
        return used[-1]

    monkeypatch.setattr(vovnet.streams, "stream_seed", noted)
    monkeypatch.setattr(regions, "stream_seed", noted)
    monkeypatch.setattr(draws, "stream", vovnet.streams.stream)
    target = Target(torch.tensor([[4.0, 4.0, 20.0, 20.0]]), torch.tensor([0]))
    anchors = torch.tensor([[0.0, 0.0, 16.0, 16.0], [40.0, 40.0, 56.0, 56.0]])
    batches = EpochBatches(8, 4, 0, lambda epoch: EpochPlan(64), repeats=[2.0, *[1.0] * 7])
    images = steps = 0
    for batches.epoch in range(3):
        for batch in batches:
            for draw in batch:
                draw.generator(0)
            parts = [Batch(torch.zeros(2, 8, 8, 3), [target] * 2)] * 2
            for target_ in (t for part in _seeded(parts, 0, steps) for t in part.targets):
                zeros = torch.zeros(1, 2), torch.zeros(1, 2, 4)
                proposal_loss(*zeros, anchors, [target_], 2)
                sample_regions(regions.match_regions(anchors, target_), 2, target_.seed)
            images, steps = images + len(batch), steps + 1
    assert len(used) == 3 + 3 * images  # an epoch's order; a sample and two draws of regions
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_an_image_draws_the_same_in_whatever_parts(parts):
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    share = 8 // parts
    batches = [Batch(torch.zeros(share, 8, 8, 3), [target] * share)] * parts
    seeds = [t.seed for part in _seeded(batches, 5, 3) for t in part.targets]
    assert seeds == [stream_seed(5, "step", 3, i) for i in range(8)]
    assert set(seeds).isdisjoint(stream_seed(5, "step", 4, i) for i in range(8))
