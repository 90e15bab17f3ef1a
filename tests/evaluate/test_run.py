import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vovnet.boxes.anchors import anchor_points
from vovnet.cli import main
from vovnet.data.open import open_dataset
from vovnet.data.record import Dataset, make_record
from vovnet.distributed import is_main, process_group, rank
from vovnet.errors import DataError, ImageError
from vovnet.evaluate.run import detect_records, evaluate
from vovnet.evaluate.together import evaluate_together
from vovnet.input_spec import InputSpec
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models.detector import Detector, Found, PointDecoder

SIDE, STRIDES = 64, (8, 16, 32)
COLOURS = ((30, 60, 220), (220, 40, 40))  # blue and red, as in the data sets of conftest.py
NAMES = ("blue", "red")


class Outputs(NamedTuple):
    """What `PointDecoder` reads."""

    class_logits: Tensor
    distances: Tensor


class ColourReader(nn.Module):
    """Says, at one point per class, where that colour's pixels lie: a detector that knows all.

    `shift` moves every box to the right, in pixels.
    """

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.colours = nn.Parameter(torch.tensor(COLOURS, dtype=torch.float32))
        self.shift = shift
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Outputs:
        self.modes.append(self.training)
        points, strides = anchor_points(SIDE, SIDE, STRIDES)
        logits = torch.full((len(images), len(points), len(COLOURS)), -10.0)
        distances = torch.zeros(len(images), len(points), 4)
        for i, image in enumerate(images):
            for label, colour in enumerate(self.colours):
                rows, columns = torch.nonzero(
                    ((image - colour[:, None, None]).abs() < 1).all(0), as_tuple=True
                )
                if not len(rows):
                    continue
                low = torch.stack([columns.min() + self.shift, rows.min()])
                high = torch.stack([columns.max() + 1 + self.shift, rows.max() + 1])
                ends = torch.cat([points[label] - low, high - points[label]])
                distances[i, label] = ends / strides[label]
                logits[i, label, label] = 5.0
        return Outputs(logits, distances)


def reader(names: tuple[str, ...] = NAMES, shift: float = 0.0) -> Detector:
    plain = InputSpec((SIDE, SIDE), "letterbox", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), multiple=32)
    network = ColourReader(shift)
    loss = TaskAlignedLoss(STRIDES)
    return Detector("reader", network, loss, PointDecoder(STRIDES), plain, names).eval()


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_detector_that_is_right_gets_one(voc, batch):
    seen = []
    metrics = evaluate(reader(), open_dataset(voc, "val"), batch=batch, on_images=seen.append)
    figures = ("map_50", "map_50_95", "map_75", "voc07_ap", "voc_area_ap", "ar_100")
    assert {key: metrics[key] for key in figures} == pytest.approx(dict.fromkeys(figures, 1.0))
    assert metrics["images"] == sum(seen) == 4
    assert max(seen) == min(batch, 4)
    assert metrics["per_class"] == {
        name: {"map_50_95": pytest.approx(1.0), "map_50": pytest.approx(1.0), "count": 4}
        for name in NAMES
    }
    assert metrics["map_large"] is None  # there is nothing of that size


def test_one_that_is_a_little_off_gets_less_and_one_far_off_nothing(voc):
    dataset = open_dataset(voc, "val")
    near, far = (evaluate(reader(shift=shift), dataset) for shift in (3.0, 40.0))
    assert near["map_50"] == pytest.approx(1.0)
    assert 0.2 < near["map_50_95"] < 0.9
    assert far["map_50"] == far["voc07_ap"] == far["voc_area_ap"] == 0.0


def test_pictures_without_truth_have_no_figure(make_voc, tmp_path):
    dataset = open_dataset(make_voc(tmp_path, train=1, val=2, empty=True), "val", NAMES)
    metrics = evaluate(reader(), dataset)
    assert metrics["images"] == 2
    assert metrics["map_50"] is metrics["voc07_ap"] is metrics["voc_area_ap"] is None


def test_other_classes_are_refused(voc):
    dataset = open_dataset(voc, "val")
    for names in (("red", "blue"), ("blue",), ("blue", "red", "green")):
        with pytest.raises(DataError) as caught:
            evaluate(reader(names), dataset)
        assert "classes blue, red are not the model's" in str(caught.value)
        assert str(voc) in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_in_eval_mode_and_then_as_before(voc, training):
    detector = reader().train(training)
    evaluate_together(detector, open_dataset(voc, "val"))
    assert set(detector.network.modes) == {False}
    assert detector.training is detector.network.training is training


def row_of_pictures(folder: Path, count: int) -> Dataset:
    """Picture i has its blue rectangle at x = 4·i."""
    records = []
    for i in range(count):
        pixels = np.full((64, 64, 3), 114, np.uint8)
        pixels[10:30, 4 * i : 4 * i + 10] = COLOURS[0]
        Image.fromarray(pixels).save(folder / f"{i}.png")
        box = (4.0 * i, 10.0, 4.0 * i + 10, 30.0)
        records.append(make_record(folder / f"{i}.png", i + 1, (64, 64), [(box, 0)]))
    return Dataset(folder, "all", "voc", NAMES, tuple(records))


@pytest.mark.parametrize("batch", [1, 4, 5, 100])
def test_detections_keep_the_order_of_their_images(tmp_path, batch):
    dataset = row_of_pictures(tmp_path, 10)
    counts = []
    found = list(detect_records(reader(), dataset.records, batch=batch, on_images=counts.append))
    assert len(found) == sum(counts) == 10
    assert all(count == batch for count in counts[:-1])
    for record, detections in zip(dataset.records, found, strict=True):
        assert detections.labels.tolist() == [0]
        assert np.allclose(detections.boxes, record.boxes, atol=1e-3)
        assert detections.image_size == record.size


def test_no_records_no_detections():
    assert list(detect_records(reader(), [])) == []


def test_scores_below_the_threshold_are_left_out(tmp_path):
    dataset = row_of_pictures(tmp_path, 1)
    [kept] = detect_records(reader(), dataset.records, conf=0.99)
    [gone] = detect_records(reader(), dataset.records, conf=0.995)
    assert (len(kept), len(gone)) == (1, 0)


def test_an_unreadable_image_stops_with_its_name(tmp_path):
    dataset = row_of_pictures(tmp_path, 5)
    dataset.records[3].path.write_text("hello")
    with pytest.raises(ImageError, match=r"3\.png: not a readable"):
        list(detect_records(reader(), dataset.records, batch=2))


def outlined(folder: Path, *, masks: bool = True) -> Dataset:
    """Two pictures with one blue rectangle each, as COCO with the rectangle as a polygon."""
    images, annotations = [], []
    for number, (x, y) in enumerate(((4, 6), (20, 30)), start=1):
        pixels = np.full((SIDE, SIDE, 3), 120, np.uint8)
        pixels[y : y + 20, x : x + 28] = COLOURS[0]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        outline = [x, y, x + 28, y, x + 28, y + 20, x, y + 20]
        row = {"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, 28, 20]}
        annotations.append(row | ({"segmentation": [outline]} if masks else {}))
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances_val.json").write_text(json.dumps(content))
    return open_dataset(folder, "val")


class Outliner(PointDecoder):
    """Adds masks that fill a share of their boxes from the left."""

    share = 1.0

    def __call__(self, *args) -> list[Found]:
        mask = (torch.arange(28) < 28 * self.share).float().expand(28, 28)
        return [
            f._replace(masks=mask.expand(len(f.scores), 28, 28)) for f in super().__call__(*args)
        ]


def outliner(shift: float = 0.0, share: float = 1.0) -> Detector:
    plain, decoder = reader(shift=shift), Outliner(STRIDES)
    object.__setattr__(decoder, "share", share)
    return Detector(
        *("reader", plain.network, plain.criterion, decoder, plain.input_spec, NAMES), masks=True
    ).eval()


@pytest.mark.parametrize(("share", "wanted"), [(1.0, 1.0), (0.25, 0.0)])
def test_masks_are_measured_beside_the_boxes(tmp_path, share, wanted):
    metrics = evaluate(outliner(share=share), outlined(tmp_path))
    assert metrics["map_50"] == pytest.approx(1.0)
    assert metrics["mask_map_50"] == pytest.approx(wanted)
    if wanted:
        assert metrics["mask_map_50_95"] > 0.95


def test_without_true_masks_there_is_no_mask_figure(tmp_path):
    metrics = evaluate(outliner(), outlined(tmp_path, masks=False))
    assert metrics["map_50"] == pytest.approx(1.0)
    assert metrics["mask_map_50"] is None


@pytest.mark.parametrize("drawn", [2, 1])
def test_objects_without_a_mask_do_not_count_among_those_with_one(tmp_path, drawn):
    """No red one is drawn, and of the blue ones those of so many pictures."""
    outlined(tmp_path)
    path = tmp_path / "instances_val.json"
    content = json.loads(path.read_text())
    for row in content["annotations"][drawn:]:
        row.pop("segmentation")
    content["annotations"] += [
        {"id": 2 + image, "image_id": image, "category_id": 2, "bbox": [50, 1, 9, 4]}
        for image in (1, 2)
    ]
    path.write_text(json.dumps(content))
    metrics = evaluate(outliner(), open_dataset(tmp_path, "val"))
    assert metrics["map_50"] == pytest.approx(0.5)  # blue is found, red is not
    assert metrics["mask_map_50"] == pytest.approx(1.0)


BATCHES = (1, 2, 8)


def measure_in_ranks(plain: str, masked: str) -> list[dict]:
    """What a process of several measures; only the main one has the right weights."""
    found = []
    runs = [(reader(shift=3.0), plain, batch) for batch in BATCHES]
    with process_group("cpu"):
        for detector, folder, batch in (*runs, (outliner(2.0, 0.7), masked, 1)):
            seen: list[int] = []
            if not is_main():
                nn.init.zeros_(detector.network.colours)
            dataset = open_dataset(Path(folder), "val")
            metrics = evaluate_together(detector, dataset, batch=batch, on_images=seen.append)
            found.append({"metrics": metrics, "seen": sum(seen)})
    return found


@pytest.mark.slow
def test_several_processes_measure_what_one_does(make_voc, tmp_path, in_ranks):
    dataset = open_dataset(make_voc(tmp_path / "plain", train=1, val=5), "val")
    (tmp_path / "masked").mkdir()
    drawn = outlined(tmp_path / "masked")
    alone = [evaluate(reader(shift=3.0), dataset, batch=batch) for batch in BATCHES]
    alone.append(evaluate(outliner(2.0, 0.7), drawn, batch=1))
    assert all(0.2 < figures["map_50_95"] < 0.9 for figures in alone)
    assert 0.2 < alone[-1]["mask_map_50_95"] < 0.9
    one, two = in_ranks(measure_in_ranks, *(str(tmp_path / name) for name in ("plain", "masked")))
    assert [share["metrics"] for share in one] == [share["metrics"] for share in two] == alone
    assert [share["seen"] for share in one] == [3, 3, 5, 1]
    assert [share["seen"] for share in two] == [2, 2, 0, 1]


def stop_one_of_two(plain: str) -> list[int]:
    """Batches done with before KeyboardInterrupt; only the second process is asked to stop."""
    seen: list[int] = []
    with process_group("cpu"), pytest.raises(KeyboardInterrupt):
        evaluate_together(
            reader(),
            open_dataset(Path(plain), "val"),
            batch=1,
            on_images=seen.append,
            stop=lambda: rank() == 1,
        )
    return seen


def test_several_processes_stop_together(make_voc, tmp_path, in_ranks):
    make_voc(tmp_path, train=1, val=6)
    assert in_ranks(stop_one_of_two, str(tmp_path)) == [[1, 1, 1], []]


def print_figures(*arguments: str) -> list:
    """The exit code of `vovnet val` and what it prints."""
    with redirect_stdout(io.StringIO()) as said:
        code = main(["val", *arguments, "--json"])
    return [code, said.getvalue()]


def test_val_shares_the_images_and_prints_once(voc, nano, in_ranks):
    arguments = ("--weights", str(nano), "--data", str(voc), "--batch", "1")
    [alone] = in_ranks(print_figures, *arguments, count=1)
    one, two = in_ranks(print_figures, *arguments)
    assert alone[0] == 0
    assert json.loads(alone[1])["images"] == 4
    assert one == alone
    assert two == [0, ""]


def test_thresholds_reach_the_decoder(voc):
    """Those of measuring unless others are asked for: all above 0.001, overlaps up to 0.6."""
    detector, seen = reader(), []

    def decoder(outputs, size, how):
        seen.append((size, how.conf, how.iou))
        return PointDecoder(STRIDES)(outputs, size, how)

    detector.decoder = decoder
    dataset = open_dataset(voc, "val")
    evaluate(detector, dataset)
    assert set(seen) == {((SIDE, SIDE), 0.001, 0.6)}
    seen.clear()
    assert len(list(detect_records(detector, dataset.records, conf=0.3, iou=0.2))) == 4
    assert set(seen) == {((SIDE, SIDE), 0.3, 0.2)}


def test_thresholds_decide_what_is_found(voc):
    """Two boxes of one class that overlap by a half, with scores of 0.8 and 0.4."""
    detector = reader()

    class TwoBoxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Outputs:
            points, strides = anchor_points(SIDE, SIDE, STRIDES)
            logits = torch.full((len(images), len(points), 2), -20.0)
            logits[:, 0, 0], logits[:, 1, 0] = torch.tensor([0.8, 0.4]).logit()
            box = torch.tensor([[8.0, 8.0, 32.0, 32.0], [16.0, 8.0, 40.0, 32.0]])  # IoU 1/2
            ends = torch.cat([points[:2] - box[:, :2], box[:, 2:] - points[:2]], 1)
            distances = torch.zeros(len(images), len(points), 4)
            distances[:, :2] = ends / strides[:2, None]
            return Outputs(logits, distances)

    detector.network = TwoBoxes()
    records = open_dataset(voc, "val").records[:1]

    def scores(**thresholds: float) -> list[float]:
        [found] = detect_records(detector, records, **thresholds)
        return [round(float(score), 3) for score in found.scores]

    assert scores() == [0.8, 0.4]
    assert scores(iou=0.51) == [0.8, 0.4]
    assert scores(iou=0.49) == [0.8]
    assert scores(conf=0.41) == [0.8]
    assert scores(conf=0.39) == [0.8, 0.4]
