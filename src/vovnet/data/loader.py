"""Batches for training: which image, augmented how, at which size, decided by (seed, epoch, index).

No worker keeps random state, so a resumed run repeats exactly the batches it would have seen.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from vovnet.data.cache import DecodedImages, raw_sample
from vovnet.data.compose import Augment, compose
from vovnet.data.draws import Draw, EpochBatches
from vovnet.data.record import Dataset
from vovnet.data.sample import Mask, Sample
from vovnet.errors import DataError, ImageError, VovnetError
from vovnet.losses import InstanceMasks, Target

_GRACE = 10  # seconds that a worker lives on after a SIGTERM


class Batch(NamedTuple):
    """uint8 pixels N×H×W×3 and one `Target` per image."""

    pixels: Tensor
    targets: list[Target]

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; from pinned memory a GPU fetches it without a wait."""
        targets = [target.to(device) for target in self.targets]
        return Batch(self.pixels.to(device, non_blocking=device.type == "cuda"), targets)


class TrainSamples(TorchDataset):
    """Makes the augmented sample of a `Draw`."""

    def __init__(
        self,
        dataset: Dataset,
        cache: DecodedImages,
        augment: Augment,
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

    def __getitem__(self, index: Draw) -> Sample | VovnetError:
        """The sample, or what is wrong with it: raised in a worker, an error would arrive wrapped
        in that worker's traceback."""
        try:
            return compose(index, self.seed, len(self.dataset), self._raw, self.augment).render()
        except ImageError as error:  # it was there when the annotations were read
            return DataError(f"{error}; then go on with --resume")
        except VovnetError as error:
            return error

    def _raw(self, index: int) -> Sample:
        record = self.dataset.records[index]
        return raw_sample(self.cache[index], record, self.difficult, self.masks)


def _collate(samples: list[Sample | VovnetError]) -> Batch | VovnetError:
    made = []
    for sample in samples:
        if isinstance(sample, VovnetError):
            return sample
        made.append(sample)
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in made]))
    return Batch(pixels, [_target(sample) for sample in made])


def _target(sample: Sample) -> Target:
    boxes, labels = torch.from_numpy(sample.boxes), torch.from_numpy(sample.labels)
    masks = None if sample.masks is None else _packed(sample.masks)
    scores = None if sample.scores is None else torch.from_numpy(sample.scores)
    return Target(boxes, labels, masks, scores=scores)


def _packed(masks: Sequence[Mask]) -> InstanceMasks:
    """Three tensors however many masks: workers send each tensor as a file of its own."""
    frames = np.array([mask.frame for mask in masks], np.float32).reshape(-1, 4)
    shapes = np.array([mask.bitmap.shape for mask in masks], np.int64).reshape(-1, 2)
    pixels = np.concatenate([np.zeros(0, np.uint8), *(mask.bitmap.ravel() for mask in masks)])
    return InstanceMasks(*map(torch.from_numpy, (frames, shapes, pixels)))


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, _end_soon)
    # Control-C reaches workers too, but only the main process has something to say about it: it may
    # leave in the middle of fetching a batch, and the thread that hands it over would complain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _without_lost_connections


def _end_soon(number: int, frame: FrameType | None) -> None:
    """A scheduler's SIGTERM reaches workers too, while the main process needs them to finish its
    step. A second one, which is the main process's own, ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(_GRACE)


def _without_lost_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


class TrainLoader:
    """Iterates over what a DataLoader's workers make, `Batch`es as a rule; an error that one of
    them met is raised as itself."""

    def __init__(self, batches: DataLoader) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        # The workers start here, not with the first batch, which another thread may ask for: forked
        # from that one they would end badly.
        return self._raising(iter(self.batches))

    def _raising(self, made: Iterator[Any]) -> Iterator[Any]:
        for batch in made:
            if isinstance(batch, VovnetError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the workers. The garbage collector may take their queues first, after an error above
        all, and then waits ten seconds for workers that nothing tells to end."""
        workers = getattr(self.batches, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()


def train_loader(
    samples: TrainSamples, batches: EpochBatches, workers: int, pin_memory: bool = False
) -> TrainLoader:
    """A loader of `Batch`es; set `batches.epoch` before iterating. `pin_memory` is for GPUs.

    An image that has vanished or cannot be read any more ends the iteration with a `DataError`.
    """
    return start_loader(
        samples, workers, batch_sampler=batches, collate_fn=_collate, pin_memory=pin_memory
    )


def workers_fork() -> bool:
    """Whether workers share what this process has in memory. Elsewhere they are sent copies."""
    return "fork" in multiprocessing.get_all_start_methods()


def start_loader(dataset: TorchDataset, workers: int, **batching: Any) -> TrainLoader:
    """A loader whose workers stay from epoch to epoch and end quietly."""
    loader = DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if workers and workers_fork() else None,
        **batching,
    )
    return TrainLoader(loader)
