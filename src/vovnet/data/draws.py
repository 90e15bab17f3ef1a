"""Which images an epoch shows and in which order, decided by (seed, epoch) alone.

So every process of a run knows what the others see, and a resumed run sees what it would have seen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from vovnet.data.record import Record, trained
from vovnet.errors import VovnetError
from vovnet.streams import stream


class Draw(NamedTuple):
    """One sample to make: `index` into the dataset, the input size in pixels, mosaic or not,
    another image laid over it or not, and which of the epoch's copies of the image it is."""

    epoch: int
    index: int
    size: int
    mosaic: bool = False
    mixup: bool = False
    copy: int = 0

    def generator(self, seed: int) -> np.random.Generator:
        """The randomness of this sample in a run with that seed."""
        return stream(seed, "sample", self.epoch, self.index, self.copy)


def mixing_weight(rng: np.random.Generator) -> float:
    """The weight of the first of two pictures laid over each other: 0.5 ± 0.12, both show."""
    return float(rng.beta(8.0, 8.0))


class EpochPlan(NamedTuple):
    """An epoch's input size in pixels and the shares of mosaics and of mixed pictures."""

    size: int
    mosaic: float = 0.0
    mixup: float = 0.0


class EpochBatches(Sampler):
    """Batches of draws for one epoch after another; `plan` gives an epoch's `EpochPlan`.

    `batch` is that of all `world` processes; process `rank` gets its share of each, so that
    together they see what a single one would. The last, smaller batch is dropped unless it is the
    only one: batch statistics of two or three images do harm. `repeats` says how often an image
    comes in an epoch (on average, where it is no whole number); None: once.

    Set `epoch`, and `skip` (batches at its start to leave out), before iterating. Raises
    `VovnetError` if the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        seed: int,
        plan: Callable[[int], EpochPlan],
        *,
        repeats: Sequence[float] | np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.repeats = np.ones(length) if repeats is None else np.asarray(repeats, float)
        whole = np.floor(self.repeats)
        # An epoch's sum of fractions, rounded down, is the same whichever images it falls on.
        self.length = int(whole.sum()) + int((self.repeats - whole).sum())
        self.batch = _shared(batch, self.length, world)
        self.seed = seed
        self.plan = plan
        self.rank, self.world = rank, world
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return self.length // self.batch

    def __iter__(self) -> Iterator[list[Draw]]:
        share = self.batch // self.world
        draws = self._draws()
        for start in range(self.skip * self.batch, len(self) * self.batch, self.batch):
            mine = start + self.rank * share
            yield draws[mine : mine + share]

    def _draws(self) -> list[Draw]:
        """The whole epoch's, of all processes."""
        rng = stream(self.seed, "epoch", self.epoch)
        size, mosaic, mixup = self.plan(self.epoch)
        indices, copies = self._listed(rng)
        order = rng.permutation(len(indices))[: self.length]
        mosaics, mixed = rng.random(len(order)) < mosaic, rng.random(len(order)) < mixup
        return [
            Draw(self.epoch, int(indices[i]), size, bool(a), bool(b), int(copies[i]))
            for i, a, b in zip(order, mosaics, mixed, strict=True)
        ]

    def _listed(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The indices of an epoch, in order and repeated, and each one's number among its copies.

        Fractions are drawn systematically, one random shift for all: each image comes as often as
        it should on average, and the list's length hardly varies.
        """
        counts = np.floor(self.repeats).astype(int)
        fractions = self.repeats - counts
        if fractions.any():
            ends = np.floor(np.cumsum(fractions) + rng.random()).astype(int)
            counts += np.diff(ends, prepend=0)
        indices = np.repeat(np.arange(len(counts)), counts)
        firsts = np.cumsum(counts) - counts
        return indices, np.arange(len(indices)) - firsts[indices]


def _shared(batch: int, length: int, world: int) -> int:
    """The batch that `length` images and `world` processes allow."""
    if batch % world:
        below, above = batch - batch % world, batch - batch % world + world
        choice = f"{below} or {above}" if below else f"{above}"
        raise VovnetError(
            f"batch {batch} cannot be shared by {world} processes evenly; give --batch {choice}"
        )
    if length < world:
        raise VovnetError(
            f"{length} images for {world} processes: each needs one; start fewer processes"
        )
    return min(batch, length - length % world)


def repeat_factors(
    records: Sequence[Record], threshold: float, difficult: bool = False
) -> np.ndarray:
    """How often each image should come in an epoch, so that rare classes are seen more.

    A class that the share f of the images shows has the factor max(1, √(threshold/f)), an image
    the greatest factor of its classes (LVIS, arXiv 1908.03195), 1 without objects.
    Objects that are not trained on do not count; see `trained`.
    """
    shown = [np.unique(record.labels[trained(record, difficult)]) for record in records]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *shown]))
    factors = np.sqrt(threshold * len(records) / counts.clip(min=1)).clip(min=1.0)
    return np.array([factors[classes].max(initial=1.0) for classes in shown])
