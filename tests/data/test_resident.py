import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vovnet.data import ssd
from vovnet.data.cache import ImageCache
from vovnet.data.draws import EpochBatches, EpochPlan
from vovnet.data.loader import Batch, TrainSamples, train_loader
from vovnet.data.place import Place
from vovnet.data.record import Dataset, make_record
from vovnet.data.resident import ResidentImages, _drawn, one_ahead, resident_loader
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.device import free_memory
from vovnet.errors import VovnetError

CPU = torch.device("cpu")
LONGEST = 96


def smooth(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """A picture of soft shapes: on noise, a tenth of a pixel would count as a difference."""
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Eight pictures of different shapes, larger and smaller than what is kept."""
    folder, rng, records = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    shapes = [(90, 120), (120, 90), (64, 64), (200, 150), (30, 80), (96, 96), (150, 260), (70, 40)]
    for number, (height, width) in enumerate(shapes):
        path = folder / f"{number}.png"
        smooth(height, width, rng).save(path)
        corners = np.sort(rng.uniform(0, 1, (3, 2, 2)), 1) * [width, height]
        rows = [(tuple(box), label) for label, box in enumerate(corners.reshape(3, 4).tolist())]
        marks = {"difficult": [False, False, True]}
        records.append(make_record(path, number, (height, width), rows, **marks))
    return Dataset(folder, "train", "coco", ("a", "b", "c"), tuple(records))


def samples(dataset: Dataset, augment=None, **more) -> TrainSamples:
    cache = ImageCache(dataset.records, LONGEST)
    return TrainSamples(dataset, cache, augment or ZoomAugment(), 3, difficult=False, **more)


def batches(mosaic: float, mixup: float, size: int = 64) -> EpochBatches:
    return EpochBatches(8, 4, 3, lambda _: EpochPlan(size, mosaic, mixup))


def both(made: TrainSamples, mosaic: float, mixup: float) -> list[tuple[Batch, Batch]]:
    """Batches of the workers and of the device, for several epochs."""
    source = batches(mosaic, mixup)
    resident = resident_loader(made, source, LONGEST, CPU)
    loader, found = train_loader(made, source, 0), []
    for source.epoch in range(6):
        found += zip(loader, resident, strict=True)
    return found


AUGMENTS = {
    "letterbox": ZoomAugment(vertical_flip=0.5),
    "warp": ZoomAugment(fit="warp", colour=0.0),
    "strong": ZoomAugment(zoom=(0.2, 3.0), aspect=1.0, colour=0.8),
    "ssd": SSDAugment(vertical_flip=0.5),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
@pytest.mark.parametrize(("mosaic", "mixup"), [(0.0, 0.0), (1.0, 0.0), (0.5, 0.5)])
def test_the_device_makes_what_the_workers_make(dataset, augment, mosaic, mixup, monkeypatch):
    monkeypatch.setattr(ssd, "_INTERPOLATIONS", (Image.Resampling.BILINEAR,))
    objects = 0
    for one, other in both(samples(dataset, augment), mosaic, mixup):
        assert (other.pixels.shape, other.pixels.dtype) == (one.pixels.shape, torch.uint8)
        assert other.pixels.is_contiguous()
        difference = (one.pixels.float() - other.pixels.float()).abs()
        assert difference.mean() < 1.0
        assert difference.quantile(0.99) <= 6
        for target, twin in zip(one.targets, other.targets, strict=True):
            assert torch.equal(target.boxes, twin.boxes)
            assert torch.equal(target.labels, twin.labels)
            objects += len(twin.labels)
    assert objects > 40


def test_half_precision_is_enough(dataset):
    """What a GPU computes with."""
    resident = resident_loader(samples(dataset), batches(0.5, 0.0), LONGEST, CPU)
    images, plan = resident.images.pixels, next(iter(resident.plans))
    whole, half = (_drawn(images, plan.parts, 4, 64, d)[0] for d in (torch.float32, torch.float16))
    assert whole.std() > 20
    assert (whole - half).abs().max() < 0.5


def test_batches_repeat_and_go_on_in_the_middle(dataset):
    made, source = samples(dataset), batches(0.5, 0.5)
    resident = resident_loader(made, source, LONGEST, CPU)
    source.epoch = 4
    whole = list(resident)
    with closing(resident_loader(made, source, LONGEST, CPU, workers=2)) as loader:
        again = list(loader)
    source.skip = 1
    [rest] = resident
    assert len(whole) == len(resident) == 2
    for one, other in (*zip(whole, again, strict=True), (whole[1], rest)):
        assert torch.equal(one.pixels, other.pixels)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one[1], other[1], strict=True))


def test_a_single_image_without_objects(dataset):
    record = make_record(dataset.records[0].path, 0, (90, 120), [])
    made = samples(replace(dataset, records=(record,)))
    source = EpochBatches(1, 4, 0, lambda _: EpochPlan(32, 1.0, 1.0))
    [(pixels, targets)] = resident_loader(made, source, LONGEST, CPU)
    assert pixels.shape == (1, 32, 32, 3)
    assert targets[0].boxes.shape == (0, 4)


def test_a_batch_that_shows_no_image_at_all(dataset, monkeypatch):
    """As a crop beside the expanded image does."""
    monkeypatch.setattr(Place, "spans", lambda *_: None)
    augment = SSDAugment()
    loader = resident_loader(samples(dataset, augment), batches(0, 0), LONGEST, CPU)
    pixels, _ = next(iter(loader))
    assert (pixels == torch.tensor(augment.fill)).all()


def test_images_take_no_more_room_than_the_largest_needs(dataset):
    assert ResidentImages(dataset, LONGEST, CPU).pixels.shape == (8, 3, 96, 96)
    flat = replace(dataset, records=dataset.records[4:5] * 2)
    images = ResidentImages(flat, 400, CPU)
    assert images.pixels.shape == (2, 3, 30, 80)
    assert np.array_equal(
        images.pixels[1].permute(1, 2, 0).numpy(), np.asarray(Image.open(flat.records[0].path))
    )


def test_what_does_not_fit_is_refused_with_both_figures(dataset, tmp_path):
    header = Image.new("RGB", (4000, 4000))
    header.save(tmp_path / "large.png")
    record = replace(dataset.records[0], path=tmp_path / "large.png", size=(4000, 4000))
    count = int(free_memory(CPU) / (3 * 4000 * 4000)) + 1
    large = replace(dataset, records=(record,) * count)
    with pytest.raises(VovnetError, match=r"need [\d.]+ GB of the [\d.]+ GB .*--cache disk"):
        ResidentImages(large, 4000, CPU)


def test_masks_are_refused(dataset):
    with pytest.raises(VovnetError, match="masks"):
        resident_loader(samples(dataset, masks=True), batches(0, 0), LONGEST, CPU)


def test_an_unreadable_image_stops_with_its_name(dataset, tmp_path):
    lost = replace(dataset.records[0], path=Path(tmp_path / "lost.png"))
    broken = replace(dataset, records=(*dataset.records, lost))
    with pytest.raises(VovnetError, match=r"lost\.png: no such file"):
        ResidentImages(broken, LONGEST, CPU)


def test_one_ahead_takes_the_next_item_while_one_is_in_use():
    taken = [threading.Event() for _ in range(3)]
    made = one_ahead(event.set() or number for number, event in enumerate(taken))
    assert next(made) == 0
    assert taken[1].wait(10)
    assert not taken[2].is_set()
    assert list(made) == [1, 2]


def test_one_ahead_passes_errors_on_and_ends_its_thread_when_left():
    def failing():
        yield 1
        raise VovnetError("no more")

    made = one_ahead(failing())
    assert next(made) == 1
    with pytest.raises(VovnetError, match="no more"):
        next(made)
    before = threading.active_count()
    left = one_ahead(iter(range(100)))
    assert next(left) == 0
    left.close()
    assert threading.active_count() == before
