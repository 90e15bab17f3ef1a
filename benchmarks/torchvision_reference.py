"""A plain training loop after torchvision's references/detection, to measure ours against.

What its scripts do on a CPU: images opened with Pillow in loader workers, augmentation by
`torchvision.transforms.v2` with their presets, float images scaled to the input by the model, whole
networks in float32 and in torch's usual memory layout, SGD.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert
from torchvision.transforms import v2

from vovnet.data.record import Record
from vovnet.models.detector import Detector

Pair = tuple[Tensor, dict[str, Tensor]]  # an image 3×H×W in 0..1, its boxes and labels from 1


def preset(name: Literal["ssd", "ssdlite"]) -> Callable[[Image.Image, dict], Pair]:
    """The reference scripts' augmentation of that name."""
    steps: list[nn.Module] = []
    if name == "ssd":
        steps += [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=[123, 117, 104])]
    steps += [v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    return v2.Compose(steps)


class Pictures(TorchDataset):
    """Images with their objects, opened anew each time; crowds and difficult ones are left out."""

    def __init__(self, records: Sequence[Record], transform: Callable) -> None:
        self.records = records
        self.transform = transform

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Pair:
        record = self.records[index]
        image = Image.open(record.path).convert("RGB")
        keep = ~(record.crowd | record.difficult)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(record.boxes[keep]),
            format="XYXY",
            canvas_size=(image.height, image.width),
        )
        labels = torch.from_numpy(record.labels[keep]) + 1  # 0 is the background
        return self.transform(image, {"boxes": boxes, "labels": labels})


def _collate(pairs: list[Pair]) -> tuple[Any, ...]:
    return tuple(zip(*pairs, strict=True))


def endless(
    records: Sequence[Record], transform: Callable, batch: int, workers: int
) -> Iterator[tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]]:
    """Batches of images and targets, epoch after epoch."""
    loader = DataLoader(
        Pictures(records, transform),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=_collate,
    )
    while True:
        yield from loader


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    device: str = "cpu",
) -> float:
    """One step; returns the loss. Raises ValueError where it is no number any more."""
    losses = model(
        [image.to(device) for image in images],
        [{key: value.to(device) for key, value in target.items()} for target in targets],
    )
    loss = sum(losses.values())
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(f"the loss became {value}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


class _Maps(nn.Module):
    """The network as torchvision wants a backbone: named outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.network(images)._asdict()


class _Head(nn.Module):
    """The outputs as torchvision's head calls them: the network has predicted already."""

    def forward(self, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        logits, offsets = outputs
        return {"cls_logits": logits, "bbox_regression": offsets}


class _Priors(nn.Module):
    """The detector's prior boxes in place of torchvision's generator."""

    def __init__(self, priors: Tensor) -> None:
        super().__init__()
        self.register_buffer("corners", box_convert(priors, "cxcywh", "xyxy"))

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.corners] * len(images.image_sizes)


def torchvision_ssd(detector: Detector) -> SSD:
    """torchvision's SSD around the network, the priors and the input of one of our detectors:
    resizing, matching, loss and suppression are torchvision's own."""
    spec = detector.input_spec
    return SSD(
        _Maps(detector.network),
        _Priors(detector.criterion.priors),
        spec.size,
        len(detector.names) + 1,
        image_mean=[value / 255 for value in spec.mean],
        image_std=[value / 255 for value in spec.std],
        head=_Head(),
    )
