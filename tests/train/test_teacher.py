"""What a teacher finds becomes soft objects beside the labels, and reaches the loss as such."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torchvision.ops import box_convert

from vovnet.data.cache import ImageCache
from vovnet.data.draws import Draw
from vovnet.data.loader import TrainSamples, _collate
from vovnet.data.open import open_dataset
from vovnet.data.record import make_record
from vovnet.data.sample import Sample, joined
from vovnet.data.zoom import ZoomAugment
from vovnet.distributed import process_group
from vovnet.errors import DataError, VovnetError
from vovnet.losses import Target
from vovnet.losses.matching import match_priors
from vovnet.losses.multibox import MultiBoxLoss, RefineLoss
from vovnet.losses.task_aligned import TaskAlignedLoss
from vovnet.models.weights import load_tensors
from vovnet.train import teacher as room
from vovnet.train.data import open_training_data
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.run import load_run, run_training
from vovnet.train.teacher import Finds, taught, with_finds

ROWS = [[8, 8, 12, 12, 1, 0.9, 0.1, 0.0], [56, 8, 10, 14, 1, 0.0, 0.0, 0.6]]  # blue, other


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VOVNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "finds"


def write_teacher(path: Path, names: tuple[str, ...] = ("blue", "other", "red")) -> Path:
    """A foreign file that finds two objects in whatever it sees."""
    stored = numpy_helper.from_array(np.array([ROWS], np.float32), "rows")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["rows"], ["out"])],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 2, 8))],
        [stored],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    told = {"input": {"height": 64, "width": 64}, "layout": "yolov5", "names": [*names]}
    path.with_suffix(".json").write_text(json.dumps(told | {"licence": "Apache-2.0"}))
    return path


def recipe(voc: Path, **values) -> Recipe:
    base = {"val": "none", "batch": 4, "epochs": 1, "lr": 6e-3, "imgsz": 64, "amp": "off"}
    base |= {"model": "vovdet_nano", "accumulate": 1, "workers": 0, "data": [f"{voc}@train"]}
    return recipe_from_dict(base | values)


def record(*rows: tuple[tuple[float, ...], int], crowd: bool = False):
    return make_record(Path("x.png"), 1, (64, 64), rows, crowd=[crowd] * len(rows))


def finds(*rows: tuple[tuple[float, ...], float, int]) -> Finds:
    boxes, scores, labels = zip(*rows, strict=True)
    return Finds(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels))


# ---- what becomes of a find


@pytest.mark.parametrize(
    ("box", "label", "stays"),
    [
        ((0, 0, 20, 20), 0, False),  # the label itself
        ((0, 0, 20, 9), 0, False),  # IoU 0.45 with it
        ((0, 0, 20, 5), 0, True),  # 0.25
        ((0, 0, 20, 20), 1, False),  # the label says otherwise
        ((0, 0, 20, 9), 1, True),  # 0.45: another thing beside it
        ((30, 30, 40, 40), 0, True),
        ((30, 30, 30, 40), 0, False),  # without area
    ],
)
def test_a_find_is_a_label_denied_by_one_or_new(box, label, stays):
    learned = with_finds(record(((0, 0, 20, 20), 0)), finds((box, 0.5, label)))
    assert len(learned.boxes) == 1 + stays
    assert learned.scores.tolist() == [1, 0.5][: 1 + stays]
    assert learned.labels.tolist() == [0, label][: 1 + stays]


def test_nothing_is_new_inside_a_crowd():
    crowd = record(((0, 0, 60, 60), 0), crowd=True)
    assert with_finds(crowd, finds(((5, 5, 9, 9), 0.5, 1))).labels.tolist() == [0]
    assert with_finds(crowd, finds(((50, 50, 64, 64), 0.5, 1))).labels.tolist() == [0]
    assert with_finds(crowd, finds(((56, 56, 64, 64), 0.5, 1))).labels.tolist() == [0, 1]


def test_scores_go_with_their_objects():
    one = Sample(np.zeros((8, 8, 3), np.uint8), np.eye(3, 4), np.arange(3), None, np.arange(3.0))
    assert one.kept(np.array([True, False, True])).scores.tolist() == [0, 2]
    plain = replace(one, scores=None)
    assert joined(one.pixels, [plain, one]).scores.tolist() == [1, 1, 1, 0, 1, 2]
    assert joined(one.pixels, [plain, plain]).scores is None


# ---- the loss


def criterion(name: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A loss, and random outputs for two images of 128 pixels."""
    random = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    if name == "vovdet":
        return TaskAlignedLoss((8, 16, 32)), (random(2, 336, 2), random(2, 336, 4).abs() + 1)
    across, down = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    middle = torch.stack([across, down], -1).view(64, 2) * 16 + 8
    priors = torch.cat([middle, torch.full((64, 2), 40.0)], 1)
    pair = random(2, 64, 3), random(2, 64, 4)
    if name == "ssd":
        return MultiBoxLoss(priors), pair
    return RefineLoss(priors), (random(2, 64, 2), random(2, 64, 4), *pair)


def losses(name: str, scores: list[float] | None, count: int = 2) -> dict[str, torch.Tensor]:
    """Total and count of each term, of an image with two objects and one with none."""
    boxes = torch.tensor([[10.0, 20, 50, 64], [70, 60, 118, 100]])[:count]
    target = Target(boxes, torch.tensor([0, 1])[:count])
    if scores is not None:
        target = target._replace(scores=torch.tensor(scores))
    loss, outputs = criterion(name)
    nothing = Target(boxes[:0], torch.zeros(0, dtype=torch.int64))
    terms = loss(outputs, [target, nothing], (128, 128))
    return {
        f"{k}/{part}": getattr(t, part) for k, t in terms.items() for part in ("total", "count")
    }


@pytest.mark.parametrize("name", ["vovdet", "ssd", "refinedet"])
def test_a_find_of_score_1_is_a_label_bit_for_bit(name):
    plain, sure = losses(name, None), losses(name, [1.0, 1.0])
    assert all(torch.equal(plain[key], sure[key].to(plain[key].dtype)) for key in plain)
    unsure = losses(name, [1.0, 0.4])
    assert all(not torch.equal(plain[key], unsure[key].to(plain[key].dtype)) for key in plain)


@pytest.mark.parametrize("name", ["vovdet", "ssd", "refinedet"])
def test_a_find_of_score_0_pulls_no_box_and_counts_nothing(name):
    both, one = losses(name, [1.0, 0.0]), losses(name, None, count=1)
    for key in ("box/total", "box/count", "class/count"):
        assert float(both[key]) == pytest.approx(float(one[key]), rel=1e-5), key


@pytest.mark.parametrize("name", ["vovdet", "ssd", "refinedet"])
def test_every_term_is_linear_in_the_score(name):
    none, half, whole = (losses(name, [1.0, score]) for score in (0.0, 0.5, 1.0))
    for key, value in half.items():
        torch.testing.assert_close(2 * value, none[key] + whole[key], rtol=1e-4, atol=1e-4)


def test_an_ssd_is_told_the_rest_is_background():
    """The class term is the cross-entropy with odds of the class and of the background."""
    loss, (logits, _) = criterion("ssd")
    boxes, labels = torch.tensor([[10.0, 20, 50, 64]]), torch.tensor([1])
    soft = Target(boxes, labels, scores=torch.tensor([0.3]))
    terms = loss((logits[:1], logits.new_zeros(1, 64, 4)), [soft], (128, 128))
    hard = loss((logits[:1], logits.new_zeros(1, 64, 4)), [Target(boxes, labels)], (128, 128))
    corners = box_convert(loss.priors, "cxcywh", "xyxy")
    mine = (match_priors(corners, [boxes], 0.5)[0] >= 0).nonzero()[:, 0]
    odds = torch.zeros(len(mine), 3)
    odds[:, 0], odds[:, 2] = 0.7, 0.3
    sure = torch.nn.functional.one_hot(torch.full((len(mine),), 2), 3).float()
    entropy = partial(torch.nn.functional.cross_entropy, logits[0, mine], reduction="sum")
    apart = terms["class"].total - hard["class"].total
    assert float(apart) == pytest.approx(float(entropy(odds) - entropy(sure)), rel=1e-4)


# ---- the whole way


def test_classes_are_matched_by_name(voc, tmp_path):
    path = write_teacher(tmp_path / "teacher.onnx")
    dataset = open_dataset(voc, "train")
    learned, notes = taught(str(path), 0.3, dataset)
    names = {dataset.names[i] for r in learned.records for i in r.labels[r.scores < 1]}
    assert names <= {"blue", "red"}
    assert "red" in names
    assert notes[0].startswith(f"{path}: ")
    assert len(notes) == 1
    assert learned.teacher["licence"] == "Apache-2.0"
    _, notes = taught(str(write_teacher(tmp_path / "two.onnx", ("a", "b", "red"))), 0.3, dataset)
    assert notes[1].endswith("does not know blue: of these, only labels tell")
    stranger = write_teacher(tmp_path / "no.onnx", ("a", "b", "c"))
    with pytest.raises(VovnetError, match="knows none of the classes blue, red; give one that"):
        taught(str(stranger), 0.3, dataset)


def test_the_teacher_looks_once(voc, tmp_path, cache, monkeypatch):
    path, dataset = write_teacher(tmp_path / "teacher.onnx"), open_dataset(voc, "train")
    looks: list[int] = []
    look = room.detect_records
    monkeypatch.setattr(room, "detect_records", lambda *a, **k: looks.append(1) or look(*a, **k))
    first, _ = taught(str(path), 0.3, dataset)
    again, _ = taught(str(path), 0.3, dataset)
    assert len(looks) == 1
    for one, other in zip(first.records, again.records, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.scores, other.scores)
    [kept] = cache.glob("*/*.npz")
    kept.write_bytes(b"damaged")
    taught(str(path), 0.3, dataset)
    taught(str(path), 0.7, dataset)  # other thresholds, other files and other pictures ask again
    taught(str(path), 0.3, replace(dataset, records=dataset.records[:3]))
    write_teacher(path, ("red", "other", "blue"))
    taught(str(path), 0.3, dataset)
    assert len(looks) == 5


def look(data: str, cache: str) -> list:
    """How many pictures this process looked at, and what was found in all; the same once more."""
    os.environ["VOVNET_CACHE"] = cache
    dataset, seen = open_dataset(Path(data), "train"), []
    detect = room.detect_records
    room.detect_records = lambda teacher, records, **options: (
        seen.append(len(records)) or detect(teacher, records, **options)
    )
    with process_group("cpu"):
        lessons = [room._lesson("vovdet_nano.voc", 0.01, dataset) for _ in range(2)]
    return [seen, *([one.boxes.tolist() for one in lesson.finds] for lesson in lessons)]


@pytest.mark.slow
def test_several_processes_share_the_pictures(make_voc, tmp_path, in_ranks):
    data = make_voc(tmp_path / "data", train=20, val=1)
    [alone] = in_ranks(look, str(data), str(tmp_path / "alone"), count=1)
    one, two = in_ranks(look, str(data), str(tmp_path / "two"))
    assert (alone[0], one[0], two[0]) == ([20], [12], [8])
    assert len(alone[1]) == 20
    assert any(alone[1])
    for finds in (alone[2], *one[1:], *two[1:]):
        assert finds == alone[1]


def test_a_batch_carries_the_scores(voc, tmp_path):
    path = write_teacher(tmp_path / "teacher.onnx")
    learned, _ = taught(str(path), 0.3, open_dataset(voc, "train"))
    samples = TrainSamples(learned, ImageCache(learned.records, 96), ZoomAugment(), 0, False)
    sample = samples[Draw(0, 0, 64, False, False)]
    [target] = _collate([sample]).targets
    assert target.scores.tolist() == sample.scores.tolist()
    assert len(target.scores) == len(target.boxes)
    assert target.to(torch.device("cpu")).scores.tolist() == sample.scores.tolist()


@pytest.mark.parametrize("name", ["teecher.safetensors", "no/teecher.xml"])
def test_a_teacher_that_is_not_there_is_told(name, voc, refused):
    line = refused("train", "--data", voc, "--teacher", name)
    assert f"{name}: no such" in line


@pytest.mark.slow
def test_training_learns_from_it_and_says_so(voc, tmp_path):
    path = write_teacher(tmp_path / "teacher.onnx")
    notes: list[str] = []
    run_training(recipe(voc, teacher=str(path)), tmp_path / "soft", on_note=notes.append)
    assert "objects beside the labels, in " in notes[0]
    run_training(recipe(voc), tmp_path / "plain")
    soft, facts = load_tensors(tmp_path / "soft" / "weights" / "last.safetensors")
    plain, other = load_tensors(tmp_path / "plain" / "weights" / "last.safetensors")
    assert any(not torch.equal(soft[key], plain[key]) for key in soft)
    assert facts["teacher"]["file"] == "teacher.onnx"
    assert facts["teacher"]["licence"] == "Apache-2.0"
    assert "teacher" not in other
    assert load_run(tmp_path / "soft").teacher == str(path)


def test_pictures_without_labels(voc, tmp_path, refused):
    path, folder = write_teacher(tmp_path / "teacher.onnx"), tmp_path / "pictures" / "inside"
    folder.mkdir(parents=True)
    for file in sorted((voc / "JPEGImages").glob("val*"))[:3]:
        shutil.copy(file, folder)
    mine = recipe(voc, teacher=str(path), unlabelled=[str(folder.parent)])
    dataset = open_training_data(mine)
    assert len(dataset) == 8 + 3
    learned, _ = taught(str(path), 0.3, dataset)
    for one in learned.records[8:]:
        assert sorted(one.scores.tolist()) == pytest.approx([0.6, 0.9])
    # What judges is among them.
    with pytest.raises(DataError, match=r"3 of the 4 images of .* are among those to train on"):
        run_training(replace(mine, val=f"{voc}@val"), tmp_path / "run")
    plain = ("train", "--data", voc, "--unlabelled", folder)
    assert "unlabelled pictures need somebody who knows them; give teacher" in refused(*plain)
    empty = ("train", "--data", voc, "--teacher", path, "--unlabelled", tmp_path / "cache")
    assert "no pictures in it; give a folder of pictures to --unlabelled" in refused(*empty)


def test_a_detector_that_takes_no_scores_is_refused(voc, tmp_path, refused):
    path = write_teacher(tmp_path / "teacher.onnx")
    call = ("train", "--data", voc, "--teacher", path, "--model")
    line = refused(*call, "fasterrcnn_lite-vovnet19_slim")
    assert "learns from labels alone; train a VoVDet or one of the SSD families" in line
    line = refused(*call, "vovdet_nano", "--cache", "device", "--imgsz", 64)
    assert "cache device carries no teacher's objects; give --cache ram" in line


@pytest.mark.slow
def test_a_resumed_run_repeats_the_unbroken_one(voc, tmp_path, cache):
    path = write_teacher(tmp_path / "teacher.onnx")
    settings = recipe(voc, teacher=str(path), epochs=2)
    run_training(settings, tmp_path / "whole")

    def stop(report, steps) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(settings, tmp_path / "parts", on_step=stop)
    shutil.rmtree(cache)
    run_training(load_run(tmp_path / "parts"), tmp_path / "parts", resume=True)
    for name in ("last", "last_raw"):
        one, other = (
            load_tensors(tmp_path / run / "weights" / f"{name}.safetensors")[0]
            for run in ("whole", "parts")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)
    write_teacher(path, ("red", "other", "blue"))
    longer = replace(load_run(tmp_path / "parts"), epochs=3)
    with pytest.raises(DataError, match="other images, classes or finds of a teacher when the run"):
        run_training(longer, tmp_path / "parts", resume=True)
