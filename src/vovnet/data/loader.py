"""Batches for training: which image, augmented how, at which size, decided by (seed, epoch, index).

No worker keeps random state, so a resumed run repeats exactly the batches it would have seen.
"""

import math
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from vovnet.data.images import open_image
from vovnet.data.masks import record_masks
from vovnet.data.record import Dataset, Record
from vovnet.data.sample import Mask, Sample
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.losses import InstanceMasks, Target


class Draw(NamedTuple):
    """One sample to make: `index` into the dataset, the input size in pixels, mosaic or not."""

    epoch: int
    index: int
    size: int
    mosaic: bool


class Batch(NamedTuple):
    """uint8 pixels N×H×W×3 and one `Target` per image."""

    pixels: Tensor
    targets: list[Target]


class _Decoded(NamedTuple):
    """Pixels H×W×3 and their scale against the whole image."""

    pixels: np.ndarray
    scale_x: float
    scale_y: float


_CHUNK = 64  # images decoded between two looks at the budget


class ImageCache:
    """Decoded images, the longer side at most `longest` pixels, kept in memory while they fit.

    Images are kept until they fill `budget` bytes; the others are decoded each time. Kept ones
    are read before the workers fork, which then share the pages.
    """

    def __init__(
        self,
        records: Sequence[Record],
        longest: int,
        budget: float = math.inf,
        threads: int = 2,
    ) -> None:
        self.longest = longest
        self._kept: list[_Decoded] = []
        total = 0
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(records), _CHUNK):
                if total >= budget:
                    break
                chunk = list(pool.map(self._load, records[start : start + _CHUNK]))
                total += sum(pixels.nbytes for pixels, _, _ in chunk)
                self._kept += chunk

    def _load(self, record: Record) -> "_Decoded":
        image, (height, width) = open_image(record.path, shrink_to=self.longest)
        scale = min(1.0, self.longest / max(width, height))
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return _Decoded(np.asarray(image), image.width / width, image.height / height)

    def sample(self, index: int, record: Record, difficult: bool, masks: bool = False) -> Sample:
        """The record's pixels with its objects in their coordinates; crowds are left out."""
        kept = index < len(self._kept)
        pixels, scale_x, scale_y = self._kept[index] if kept else self._load(record)
        keep = ~record.crowd if difficult else ~(record.crowd | record.difficult)
        drawn = record_masks(record, keep) if masks else None
        whole = Sample(pixels, record.boxes[keep], record.labels[keep], drawn)
        return whole.moved(pixels, (scale_x, scale_y), (0.0, 0.0))


class TrainSamples(TorchDataset):
    """Makes the augmented sample of a `Draw`."""

    def __init__(
        self,
        dataset: Dataset,
        cache: ImageCache,
        augment: ZoomAugment | SSDAugment,
        seed: int,
        difficult: bool,
        masks: bool = False,
    ) -> None:
        self.dataset = dataset
        self.cache = cache
        self.augment = augment
        self.seed = seed
        self.difficult = difficult
        self.masks = masks

    def __getitem__(self, index: Draw) -> Sample:
        draw = index
        rng = np.random.default_rng((self.seed, draw.epoch, draw.index))
        if draw.mosaic and isinstance(self.augment, ZoomAugment):
            others = rng.integers(len(self.dataset), size=3)
            parts = [self._raw(i) for i in (draw.index, *others)]
            return self.augment.mosaic(parts, draw.size, rng)
        return self.augment.single(self._raw(draw.index), draw.size, rng)

    def _raw(self, index: int) -> Sample:
        return self.cache.sample(index, self.dataset.records[index], self.difficult, self.masks)


class EpochBatches(Sampler):
    """Batches of draws for one epoch after another; `plan` gives an epoch's size and mosaic share.

    The last, smaller batch is dropped unless it is the only one: batch statistics of two or three
    images do harm.
    """

    def __init__(
        self, length: int, batch: int, seed: int, plan: Callable[[int], tuple[int, float]]
    ) -> None:
        self.length = length
        self.batch = min(batch, length)
        self.seed = seed
        self.plan = plan
        self.epoch = 0

    def __len__(self) -> int:
        return self.length // self.batch

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        size, mosaic = self.plan(self.epoch)
        order = rng.permutation(self.length)[: len(self) * self.batch]
        draws = [Draw(self.epoch, int(i), size, bool(rng.random() < mosaic)) for i in order]
        for start in range(0, len(draws), self.batch):
            yield draws[start : start + self.batch]


def _collate(samples: list[Sample]) -> Batch:
    pixels = torch.from_numpy(np.stack([s.pixels for s in samples]))
    return Batch(pixels, [_target(sample) for sample in samples])


def _target(sample: Sample) -> Target:
    boxes, labels = torch.from_numpy(sample.boxes), torch.from_numpy(sample.labels)
    return Target(boxes, labels, None if sample.masks is None else _packed(sample.masks))


def _packed(masks: Sequence[Mask]) -> InstanceMasks:
    """Three tensors however many masks: workers send each tensor as a file of its own."""
    frames = np.array([mask.frame for mask in masks], np.float32).reshape(-1, 4)
    shapes = np.array([mask.bitmap.shape for mask in masks], np.int64).reshape(-1, 2)
    pixels = np.concatenate([np.zeros(0, np.uint8), *(mask.bitmap.ravel() for mask in masks)])
    return InstanceMasks(*map(torch.from_numpy, (frames, shapes, pixels)))


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Control-C reaches workers too, but only the main process has something to say about it: it may
    # leave in the middle of fetching a batch, and the thread that hands it over would complain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _without_lost_connections


def _without_lost_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


def train_loader(samples: TrainSamples, batches: EpochBatches, workers: int) -> DataLoader:
    """A loader of `Batch`es; set `batches.epoch` before iterating."""
    forks = workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    return DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        # Other start methods would copy the cached images into every worker.
        multiprocessing_context="fork" if forks else None,
    )
