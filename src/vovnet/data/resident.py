"""The whole training set on the device that trains, augmented there in batches: it never waits.

What is random is drawn by workers on the CPU, with the code of those that draw pictures
(`compose`), so samples differ from theirs by rounding alone, and by SSD's choice of interpolations:
here it is always bilinear. An input is an image scaled and moved along its axes, which is two
matrix products: rows · image · columns, the matrices holding the weights of the same triangle
filter that Pillow resizes with.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from vovnet.data.cache import Decoded, decoded_chunks, raw_sample, shrunk
from vovnet.data.compose import Augment, Composition, Picture, compose
from vovnet.data.draws import Draw, EpochBatches
from vovnet.data.loader import Batch, TrainLoader, TrainSamples, start_loader, workers_fork
from vovnet.data.record import Dataset
from vovnet.data.sample import Sample
from vovnet.data.ssd import turn_hues
from vovnet.data.zoom import LUMA, ZoomAugment
from vovnet.device import free_memory
from vovnet.errors import VovnetError
from vovnet.images import image_size
from vovnet.losses import Target

Item = TypeVar("Item")

_MOST = 0.75  # of the free memory; the network wants some too
_PART = 14  # numbers about a part of a picture; see `BatchPlan`


class ResidentImages:
    """A dataset's images on `device`, the longer side at most `longest` pixels.

    `pixels` is N×3×H×W uint8, H and W those of the tallest and the widest image; each lies in the
    upper left corner. `samples` are the same images with their objects, for the CPU: with shapes,
    but without memory behind their pixels. Raises `VovnetError` if there is no room.
    """

    def __init__(
        self,
        dataset: Dataset,
        longest: int,
        device: torch.device,
        difficult: bool = False,
        threads: int = 2,
    ) -> None:
        records = dataset.records
        with ThreadPoolExecutor(threads) as pool:
            sizes = list(pool.map(lambda r: shrunk(image_size(r.path), longest), records))
        height, width = map(max, zip(*sizes, strict=True))
        _check_room(3 * height * width * len(records), device)
        self.pixels = torch.empty(
            (len(records), 3, height, width), dtype=torch.uint8, device=device
        )
        self.samples: list[Sample] = []
        for chunk in decoded_chunks(records, longest, threads):
            for pixels, scale_x, scale_y in chunk:
                index = len(self.samples)
                planes = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
                self.pixels[index, :, : planes.shape[1], : planes.shape[2]] = planes.to(device)
                blank = Decoded(_blank(*pixels.shape[:2]), scale_x, scale_y)
                self.samples.append(raw_sample(blank, records[index], difficult))


def _check_room(needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if needed > _MOST * free:
        raise VovnetError(
            f"cache device: the images need {needed / 1e9:.2f} GB of the {free / 1e9:.2f} GB that "
            f"are free on {device}, and training takes the rest; give --cache disk, or a smaller "
            "--imgsz"
        )


def _blank(height: int, width: int) -> np.ndarray:
    """Pixels with a shape and nothing else."""
    return np.broadcast_to(np.uint8(0), (height, width, 3))


class BatchPlan(NamedTuple):
    """What the device needs to know of a batch, on the CPU.

    `parts` is P×14: index of the image, number of the picture it is part of, then for x and y the
    span (first, last, start, end), the image's length, and whether it is flipped. `colours` are
    those of the layouts, a row for every picture. `mix` is N×3, for every sample: its pictures'
    numbers (twice the same where it has one only) and the weight of the first. `boxes` and `labels`
    are those of all samples, one after the other, `counts` how many each has.
    """

    size: int
    parts: Tensor
    colours: Tensor
    mix: Tensor
    boxes: Tensor
    labels: Tensor
    counts: list[int]


class BatchPlans(TorchDataset):
    """Makes the `BatchPlan` of a batch's draws; `samples` have no pixels, only a shape of them."""

    def __init__(self, samples: Sequence[Sample], augment: Augment, seed: int) -> None:
        self.samples = samples
        self.augment = augment
        self.seed = seed

    def __getitem__(self, index: Sequence[Draw]) -> BatchPlan:
        """The plan, on the CPU."""
        count, size = len(self.samples), index[0].size
        made = [
            compose(draw, self.seed, count, self.samples.__getitem__, self.augment)
            for draw in index
        ]
        pictures = [picture for one in made for picture in one.pictures]
        parts = [row for number, picture in enumerate(pictures) for row in _parts(number, picture)]
        objects = [one.objects(_blank(size, size)) for one in made]
        return BatchPlan(
            size,
            torch.tensor(parts, dtype=torch.float32).view(len(parts), _PART),
            torch.tensor([picture.layout.colours for picture in pictures], dtype=torch.float32),
            torch.tensor(list(_mix(made)), dtype=torch.float32),
            torch.from_numpy(np.concatenate([sample.boxes for sample in objects])),
            torch.from_numpy(np.concatenate([sample.labels for sample in objects])),
            [len(sample.labels) for sample in objects],
        )


class ResidentLoader:
    """Iterates over `Batch`es whose tensors lie on the images' device, like `train_loader`'s.

    `plans` iterates over a batch's `BatchPlan` after the other.
    """

    def __init__(self, images: ResidentImages, plans: TrainLoader, augment: Augment) -> None:
        self.images = images
        self.plans = plans
        self.augment = augment
        self._fill = images.pixels.new_tensor(augment.fill).view(3, 1, 1).float()
        # One for all epochs: what a stream has freed, only it uses again.
        self._stream = torch.cuda.Stream(images.pixels.device) if images.pixels.is_cuda else None

    def __len__(self) -> int:
        return len(self.plans)

    def close(self) -> None:
        """End the workers."""
        self.plans.close()

    def __iter__(self) -> Iterator[Batch]:
        stream = self._stream
        if stream is None:
            yield from map(self._batch, self.plans)
            return
        stream.wait_stream(torch.cuda.current_stream(stream.device))  # which brought the images
        # A thread tells the device to make the next one, beside what it is told for this one.
        for batch, made in one_ahead(self._made_on(stream, iter(self.plans))):
            yield _taken_over(batch, made)

    def _made_on(
        self, stream: torch.cuda.Stream, plans: Iterator[BatchPlan]
    ) -> Iterator[tuple[Batch, torch.cuda.Event]]:
        """Batches made on `stream`, and when they are."""
        for plan in plans:
            with torch.cuda.stream(stream):
                batch, made = self._batch(plan), torch.cuda.Event()
                made.record(stream)
            yield batch, made

    def _batch(self, plan: BatchPlan) -> Batch:
        images, device = self.images.pixels, self._fill.device
        parts, colours, mix, boxes, labels = (_sent(tensor, device) for tensor in plan[1:6])
        # Half precision keeps eighths of a grey value, and tensor cores are much faster with it.
        dtype = torch.float16 if images.is_cuda else torch.float32
        pictures, cover = _drawn(images, parts, len(colours), plan.size, dtype)
        if isinstance(self.augment, ZoomAugment):
            pictures = _recoloured(torch.where(cover, pictures, self._fill), colours)
        else:
            pictures = torch.where(cover, _distorted(pictures, colours), self._fill)
        if len(mix) < len(colours):
            one, other = (pictures[mix[:, i].long()] for i in (0, 1))
            pictures = other.lerp(one, mix[:, 2, None, None, None])
        pixels = pictures.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        objects = zip(boxes.split(plan.counts), labels.split(plan.counts), strict=True)
        return Batch(pixels, [Target(*pair) for pair in objects])


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each taken by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _taken_over(batch: Batch, made: torch.cuda.Event) -> Batch:
    """A batch of another stream, for this one: it is waited for, and its memory not used again
    before this stream is done with it."""
    stream = torch.cuda.current_stream(batch.pixels.device)
    stream.wait_event(made)
    for tensor in (batch.pixels, batch.targets[0].boxes, batch.targets[0].labels):
        tensor.record_stream(stream)  # all images' boxes share memory
    return batch


def _parts(number: int, picture: Picture) -> Iterator[tuple[float, ...]]:
    indices, samples, layout = picture
    for index, sample, place in zip(indices, samples, layout.places, strict=True):
        height, width = sample.pixels.shape[:2]
        spans = place.spans(height, width)
        if spans is not None:
            across = (*spans[0], width, layout.mirrored)
            yield index, number, *across, *spans[1], height, layout.upside_down


def _mix(made: Sequence[Composition]) -> Iterator[tuple[int, int, float]]:
    first = 0
    for _, pictures, weight in made:
        yield first, first + len(pictures) - 1, weight
        first += len(pictures)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; from pinned memory a GPU fetches it without a wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _drawn(
    images: Tensor, parts: Tensor, count: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The `count` pictures, S×3×size×size float32 in 0..255, and where they show an image, S×1×…"""
    index, number = parts[:, 0].long(), parts[:, 1].long()
    columns = _weights(parts[:, 2:8], size, images.shape[3]).to(dtype)[:, None]
    rows = _weights(parts[:, 8:], size, images.shape[2]).to(dtype)[:, None]
    seen = rows @ images[index].to(dtype) @ columns.mT
    shown = rows.any(3)[..., :, None] & columns.any(3)[..., None, :]
    canvas = torch.zeros((count, 4, size, size), dtype=dtype, device=images.device)
    canvas.index_add_(0, number, torch.cat([seen, shown], 1))
    return canvas[:, :3].float(), canvas[:, 3:] > 0


def _weights(axis: Tensor, size: int, length: int) -> Tensor:
    """How much of each of the `length` source pixels each of the input's shows: P×size×length.

    `axis` is P×6, as in `BatchPlan`. A triangle as wide as a source pixel or an input pixel,
    whichever is larger, as in Pillow's bilinear resizing.
    """
    first, last, start, end, source, flipped = axis[:, :, None].unbind(1)
    at = torch.arange(size, device=axis.device) + 0.5
    at = torch.where(flipped > 0, size - at, at)
    step = (end - start) / (last - first)
    centre = (start + (at - first) * step)[:, :, None]
    pixel = torch.arange(length, device=axis.device) + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp(min=1)[:, :, None]).clamp_(min=0)
    weights *= pixel < source[:, :, None]
    weights /= weights.sum(2, keepdim=True).clamp_(min=1e-6)
    return weights * ((at > first) & (at < last))[:, :, None]


def _recoloured(pictures: Tensor, factors: Tensor) -> Tensor:
    """S×3×H×W pictures with brightness, contrast and saturation (S×3) changed, as `zoom` does."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    mean = (_grey(pictures).round_() * brightness).clamp_(0, 255).mean((2, 3), keepdim=True)
    pictures = (pictures * brightness).clamp_(0, 255)
    pictures = mean.lerp(pictures, contrast).clamp_(0, 255)
    return _grey(pictures).lerp(pictures, saturation).clamp_(0, 255)


def _distorted(pictures: Tensor, changes: Tensor) -> Tensor:
    """S×3×H×W pictures with their colours changed by `Distortion`s (S×5)."""
    brightness, contrast, saturation, hue, first = changes[:, :, None, None, None].unbind(1)
    before = contrast.where(first > 0, 1.0)
    pictures = ((pictures + brightness).clamp_(0, 255) * before).clamp_(0, 255)
    channels = turn_hues(pictures.split(1, 1), saturation, hue, torch)
    return (torch.cat(channels, 1) * (contrast / before)).clamp_(0, 255)


def _grey(pictures: Tensor) -> Tensor:
    red, green, blue = (weight * pictures[:, i : i + 1] for i, weight in enumerate(LUMA))
    return red + green + blue


def resident_loader(
    samples: TrainSamples,
    batches: EpochBatches,
    longest: int,
    device: torch.device,
    *,
    workers: int = 0,
    threads: int = 2,
) -> ResidentLoader:
    """A loader that makes the same samples on `device`; the cache of `samples` is not used,
    `threads` decode the images, and `workers` draw what is random.

    Raises `VovnetError` for masks, which stay on the CPU, or if there is no room.
    """
    if samples.masks:
        raise VovnetError("cache device carries no masks; give --cache ram")
    images = ResidentImages(samples.dataset, longest, device, samples.difficult, threads)
    plans = BatchPlans(images.samples, samples.augment, samples.seed)
    loader = start_loader(plans, workers if workers_fork() else 0, sampler=batches, batch_size=None)
    return ResidentLoader(images, loader, samples.augment)
