"""What the training benchmarks compare is the same thing; their clocks and lists are right."""

import csv
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vovnet.data.open import open_dataset
from vovnet.detections import Detections
from vovnet.losses import Target
from vovnet.models import create_detector

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module


def test_both_loops_train_the_same_network_by_the_same_loss(script):
    detector = create_detector("ssd300-mobilenet_v1", ("one", "two")).train()
    theirs = script("torchvision_reference").torchvision_ssd(detector).train()
    assert list(map(id, theirs.parameters())) == list(map(id, detector.parameters()))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 300, 300, 3), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[20.0, 30, 120, 150], [150, 160, 290, 280]])
    targets = [Target(boxes, torch.tensor([0, 1])), Target(boxes[:1], torch.tensor([1]))]
    ours = detector.loss(detector(detector.normalize(pixels)), targets, (300, 300))
    expected = theirs(
        [image.permute(2, 0, 1) / 255 for image in pixels],
        [{"boxes": t.boxes, "labels": t.labels + 1} for t in targets],
    )
    torch.testing.assert_close(ours["class"], expected["classification"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours["box"], expected["bbox_regression"], rtol=1e-4, atol=1e-4)


def test_the_reference_loop_learns(script, voc):
    reference = script("torchvision_reference")
    dataset = open_dataset(voc, "train")
    model = reference.torchvision_ssd(create_detector("ssd300-mobilenet_v1", dataset.names))
    optimizer = torch.optim.SGD(model.train().parameters(), 1e-3, momentum=0.9)
    images, targets = next(reference.endless(dataset.records, reference.preset("ssd"), 2, 0))
    assert {image.dtype for image in images} == {torch.float32}
    assert max(image.max() for image in images) <= 1
    losses = [reference.train_step(model, optimizer, images, targets) for _ in range(4)]
    assert losses[-1] < losses[0]
    with pytest.raises(ValueError, match="the loss became nan"):
        reference.train_step(model, optimizer, [i * torch.nan for i in images], targets)


def test_clock(script):
    clock = script("short_training").Clock(0.0, 100.0)
    rates = []
    for clock.seconds in range(0, 101, 5):
        rates.append(clock.rate)
    assert max(rates) == rates[1] == 1
    assert rates[0] < 0.1
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0)
    assert clock.share == 1


def test_what_is_measured_otherwise_is_not_mistaken_for_what_is_there(script, tmp_path):
    claim = script("common").claim
    claim(tmp_path / "work", {"lr": 0.1, "data": tmp_path})
    claim(tmp_path / "work", {"lr": 0.1, "data": tmp_path})
    with pytest.raises(SystemExit, match="begun with other values"):
        claim(tmp_path / "work", {"lr": 0.2, "data": tmp_path})
    (tmp_path / "work" / "given.json").rename(tmp_path / "work" / "result.json")
    with pytest.raises(SystemExit, match="begun with other values"):
        claim(tmp_path / "work", {"lr": 0.1, "data": tmp_path})


def test_derived_lists(script, voc, tmp_path):
    common = script("common")
    stems = common.voc_list(voc, "train")
    derived = common.derive_voc(voc, tmp_path / "derived", {"few": stems[:2]})
    common.derive_voc(voc, derived, {"few": stems[:2]})  # a second time
    whole, few = open_dataset(voc, "train"), open_dataset(derived, "few")
    assert few.names == whole.names
    assert [record.path.stem for record in few.records] == stems[:2]


def test_the_candidate_without_changes_is_the_shipped_network(script):
    networks = script("candidate_networks")
    torch.manual_seed(0)
    shipped = create_detector("vovdet_nano", ("one", "two")).network.eval()
    plain = networks.OSADetector(networks.OSAPlan(), 2).eval()
    for part in ("backbone", "neck.laterals", "neck.down", "neck.shrink", "neck.up", "heads"):
        ours, theirs = plain.get_submodule(part), shipped.get_submodule(part).state_dict()
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.values(), strict=True)))
    images = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        expected, found = shipped(images), plain(images)
    torch.testing.assert_close(found.class_logits, expected.class_logits)
    torch.testing.assert_close(found.distances, expected.distances)


def test_the_yardstick_has_the_published_size(script):
    networks = script("candidate_networks")
    network = networks.CSPDetector(networks.CSPPlan(), 80)
    parameters = sum(p.numel() for p in network.parameters())
    objectness = 3 * (64 + 1)  # YOLOX predicts it, our criterion has none
    assert (parameters + objectness) / 1e6 == pytest.approx(0.91, abs=0.005)  # arXiv 2107.08430


@pytest.mark.slow
def test_throughput_is_measured_in_turns(voc, tmp_path):
    out = tmp_path / "out.csv"
    options = ("--data", f"{voc}@train", "--model", "ssd300-mobilenet_v1", "--batch", 2)
    options += ("--windows", 2, "--steps", 2, "--out", out)
    command = [sys.executable, ROOT / "benchmarks" / "train_throughput.py", *options]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, timeout=280)
    (row,) = csv.DictReader(out.read_text().splitlines())
    for name in ("vovnet", "torchvision", "synthetic"):
        assert float(row[f"{name}_images_per_s_min"]) > 0
        assert 0 <= float(row[f"{name}_wait"]) < 1
    assert float(row["synthetic_wait"]) < 0.01
    assert float(row["ratio_to_torchvision_min"]) <= float(row["ratio_to_torchvision_max"])


def test_cold_starts_are_measured_by_a_small_process(script):
    """A child's peak counts what its parent held; see `measure`."""
    code = (
        "import sys, cold_start\n"
        "assert not {'torch', 'numpy', 'vovnet'} & set(sys.modules)\n"
        "idle = cold_start.measure([sys.executable, '-c', 'pass'])\n"
        "large = cold_start.measure([sys.executable, '-c', 'x = b\"x\" * 100_000_000'])\n"
        "assert idle.peak < 5e7 < 1e8 < large.peak, (idle, large)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "benchmarks")
    cold = script("cold_start")
    with pytest.raises(SystemExit, match="not today"):
        cold.measure([sys.executable, "-c", "raise SystemExit('not today')"])


def test_ratios_of_cold_starts(script):
    cold = script("cold_start")
    runs = [cold.Run(2.0, 1.0, 3e6), cold.Run(4.0, 1.0, 4e6), cold.Run(5.0, 2.0, 1e6)]
    told = cold.row("ours", runs, [cold.Run(1.0, 1.0, 1e6)], [cold.Run(8.0, 6.0, 8e6)])
    ratios = (told["times_of_pass"], told["of_torch"], told["peak_of_torch"])
    assert ratios == ("2.0", "0.250", "0.500")
    values = (told["runs"], told["min_s"], told["median_s"], told["min_cpu_s"], told["peak_mb"])
    assert values == (3, "2.000", "4.000", "1.000", "4")


def test_a_teachers_worth_is_the_mean_of_its_pairs(script):
    distil = script("distil_ablation")
    figures = {("plain", 0): 0.2, ("taught", 0): 0.25, ("plain", 1): 0.3, ("taught", 1): 0.31}
    rows = [
        {"variant": variant, "seed": seed, "map_50": value, "map_50_95": value / 2}
        for (variant, seed), value in figures.items()
    ]
    rows.append({"variant": "taught", "seed": 2, "map_50": 9, "map_50_95": 9})  # without its twin
    assert distil.differences(rows, "map_50")["taught"] == pytest.approx([0.05, 0.01])
    assert distil.summary(rows)[0] == "taught: map_50 +0.0300 ± 0.0200, 2 pairs"


def test_what_is_found_in_a_mosaic_is_told_apart_by_its_cells(script):
    tiles = script("tiles")
    boxes = np.array([(10, 10, 20, 20), (650, 500, 700, 540), (2500, 1900, 2560, 1920)], float)
    found = Detections(boxes, np.ones(3), np.zeros(3, int), ("cell",))
    cells = list(tiles.cells(found, (640, 480)))
    assert [len(one) for one in cells] == [1, 0, 0, 0, 0, 1] + [0] * 9 + [1]
    assert cells[5].boxes.tolist() == [[10, 20, 60, 60]]
    pictures = [Image.new("RGB", (3, 2), (i, 0, 0)) for i in range(16)]
    assert tiles.mosaic(pictures).getpixel((5, 3)) == (5, 0, 0)


def test_tracks_are_judged_by_the_truth(script):
    tracks = script("tracks")
    scene = tracks.draw_scene("pan", 30, np.random.default_rng(0))
    known = iter(scene.objects)
    perfect = tracks.judge(scene, lambda found: next(known))
    assert (perfect["tracked"], perfect["own"], perfect["changes"]) == (1, 1, 0)
    frames = iter(enumerate(scene.objects))

    def restless(found: Detections) -> np.ndarray:
        number, objects = next(frames)
        return np.where(objects < 0, -1, objects + 100 * (number // 10))

    worse = tracks.judge(scene, restless)
    assert worse["changes"] == 2 * 8
    assert worse["tracks_an_object"] == 3
    assert worse["own"] < 0.5
    assert tracks.judge(scene, tracks.ours())["own"] > 0.9


@pytest.mark.slow
def test_a_short_soak(tmp_path):
    """Twenty clients for three seconds and a SIGTERM; the script fails if anything is amiss."""
    pytest.importorskip("skimage")
    options = ("--minutes", 0.05, "--clients", 20, "--csv", tmp_path / "soak.csv")
    options += ("--", "--runtime", "onnxruntime", "--queue", 8)
    command = [sys.executable, ROOT / "benchmarks" / "serve_soak.py", *options]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT, timeout=120)
    (row,) = csv.DictReader((tmp_path / "soak.csv").read_text().splitlines())
    assert int(row["right"]) > 10
    assert int(row["refused_503"]) > 0
    assert int(row["answered_after_sigterm"]) > 0
