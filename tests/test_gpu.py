"""What only a GPU shows: its answers are the CPU's, and every way to train and to measure runs."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from vovnet.data.cache import open_cache
from vovnet.data.draws import EpochBatches, EpochPlan
from vovnet.data.loader import TrainSamples
from vovnet.data.open import open_dataset
from vovnet.data.resident import resident_loader
from vovnet.data.ssd import SSDAugment
from vovnet.data.zoom import ZoomAugment
from vovnet.lab.bench import Protocol, bench
from vovnet.losses import Target
from vovnet.losses.matching import match_priors
from vovnet.models import create_detector
from vovnet.models.weights import load_detector
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.run import load_run, run_training
from vovnet.train.sinks import CsvSink

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # from Python 3.12 on
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
BRIEF = Protocol(seconds=0.05, repeats=2, warmup=0.05, stages=False, memory=False, energy=False)


@pytest.fixture
def exact(monkeypatch):
    """float32 without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def boxes(count: int, side: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * side / 2 + 8
    corners = torch.rand(count, 2, generator=generator) * (side - sides)
    return torch.cat([corners, corners + sides], 1)


@pytest.mark.parametrize("own", [False, True])
def test_priors_match_as_on_the_cpu(own):
    truths = [boxes(count, 300, count) for count in (0, 1, 7, 90)]
    priors = torch.stack([boxes(5000, 300, i) for i in range(4)]) if own else boxes(5000, 300, 9)
    matches = match_priors(priors.to(GPU), [t.to(GPU) for t in truths])
    assert torch.equal(matches.cpu(), match_priors(priors, truths))


@pytest.mark.parametrize(
    "name", ["dsod300-vovnet27_slim", "refinedet320-vovnet27_slim", "vovdet_nano"]
)
def test_losses_and_gradients_are_those_of_the_cpu(exact, name):
    torch.manual_seed(0)
    detector = create_detector(name, ("a", "b", "c"))
    size = detector.input_spec.size
    images = torch.randn(2, 3, *size)
    targets = [Target(boxes(n, size[0], n), torch.arange(n) % 3) for n in (2, 5)]
    found = []
    for device in (CPU, GPU):
        detector.to(device).train().zero_grad()
        outputs = detector(images.to(device))
        terms = detector.loss(outputs, [t.to(device) for t in targets], size)
        sum(terms.values()).backward()
        norm = torch.stack([p.grad.norm() for p in detector.parameters() if p.grad is not None])
        found.append([*(float(v.detach()) for v in terms.values()), float(norm.norm())])
    # A prior more or less that matches is half a per cent of RefineDet's gradient.
    assert found[1] == pytest.approx(found[0], rel=2e-2)


@pytest.mark.parametrize("augment", [SSDAugment(), ZoomAugment()], ids=["ssd", "zoom"])
def test_batches_are_those_of_the_cpu(voc, augment):
    dataset = open_dataset(voc, "train")
    cache = open_cache("off", dataset.records, 96, budget=1e9, threads=1)
    made = TrainSamples(dataset, cache, augment, 3, difficult=False)
    mosaic = 0.5 * isinstance(augment, ZoomAugment)
    found = []
    for device in (CPU, GPU):
        source = EpochBatches(8, 4, 3, lambda _: EpochPlan(64, mosaic, mosaic))
        with closing(resident_loader(made, source, 96, device, workers=2)) as loader:
            found.append(list(loader))
    for one, other in zip(*found, strict=True):
        assert other.pixels.is_cuda
        difference = (one.pixels.float() - other.pixels.cpu().float()).abs()
        assert difference.mean() < 0.5
        for target, twin in zip(one.targets, other.targets, strict=True):
            assert torch.equal(target.boxes, twin.boxes.cpu())
            assert torch.equal(target.labels, twin.labels.cpu())


@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
@pytest.mark.parametrize("cache", ["device", "ram"])
def test_trains_and_resumes(voc, tmp_path, amp, cache):
    values = {"model": "vovdet_nano", "data": [f"{voc}@train"], "val": f"{voc}@val", "epochs": 2}
    values |= {"batch": 4, "imgsz": 64, "amp": amp, "cache": cache, "workers": 2}
    values |= {"mixup": [0.5, 0.0, 1.0]}
    recipe = recipe_from_dict(values)
    row = run_training(recipe, tmp_path, device="cuda")
    assert row["epoch"] == 2
    assert row["map_50"] is not None
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("epochs: 2", "epochs: 3"))
    assert run_training(load_run(tmp_path), tmp_path, resume=True, device="cuda")["epoch"] == 3


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_recorded_passes_train_as_called_ones_do(exact, voc, tmp_path, amp, monkeypatch):
    """Two sizes of input, so that there are two recordings."""
    replayed, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (replayed.append(graph), replay(graph))
    )
    values = {"model": "vovdet_nano", "data": [f"{voc}@train"], "epochs": 4, "batch": 4}
    values |= {"imgsz": 64, "resolution": [[0.5, 32]], "amp": amp, "workers": 0, "lr": 1e-4}
    losses = []
    for graphs in (True, False):
        folder = tmp_path / str(graphs)
        run_training(recipe_from_dict(values | {"graphs": graphs}), folder, device="cuda")
        rows = CsvSink(folder / "results.csv", keep=True).rows
        losses.append([value for row in rows for value in (row["loss_class"], row["loss_box"])])
        assert len(set(replayed)) == 4  # forward and back, of each size
    assert losses[0] == pytest.approx(losses[1], rel=5e-3 if amp == "off" else 3e-2)


@pytest.mark.parametrize(
    "name",
    ["dsod300-vovnet27_slim", "refinedet320-vovnet27_slim", "fasterrcnn_lite-vovnet19_slim_dw"],
)
def test_every_family_trains(voc, tmp_path, name):
    values = {"model": name, "data": [f"{voc}@train"], "steps": 2, "batch": 4, "workers": 0}
    assert run_training(recipe_from_dict(values), tmp_path, device="cuda")["epoch"] == 1


def test_finds_what_the_cpu_finds(exact, photographs, compare_found):
    detector = load_detector("vovdet_nano.voc")
    [one, other] = [detector.to(device).detect(photographs, conf=0.01) for device in (CPU, GPU)]
    for found, twin in zip(one, other, strict=True):
        assert len(found)
        compare_found(found, twin)


def test_rows_of_every_torch_runtime():
    runtimes = ["eager", "channels_last", "cuda_graph"]
    rows = bench(
        ["vovnet27_slim"],
        device="cuda",
        runtimes=runtimes,
        precisions=["fp32", "bf16", "fp16"],
        protocol=BRIEF,
    )
    assert len(rows) == 9
    for row in rows:
        assert (row.error, row.correct) == (None, True), row
        json.dumps(row.to_dict(), allow_nan=False)


def test_energy_by_the_counter():
    protocol = replace(BRIEF, energy=True, repeats=1)
    [row] = bench(["vovnet27_slim"], batch=32, device="cuda", protocol=protocol)
    assert row.idle_watts.value > 5
    watts = row.joules_per_image.value * row.images_per_s.value
    assert row.idle_watts.value < watts < 2000


def test_a_graph_keeps_its_answers(exact):
    """The next call writes into the same memory."""
    from vovnet.runtimes import open_runtime

    network = create_detector("vovdet_nano", ("a",)).network.eval()
    images = torch.randn(2, 1, 3, 64, 64)
    with open_runtime(network, images[0], "cuda_graph", device="cuda") as runner:
        one, other = runner(images[0]), runner(images[1])
        again = runner(images[0])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[0], again[0])


def test_an_engine_finds_what_torch_finds(exact, photographs, compare_found, tmp_path):
    pytest.importorskip("tensorrt")
    import vovnet
    from vovnet.deploy.export import Proof, export
    from vovnet.deploy.formats import Order
    from vovnet.detect.pictures import to_pictures

    detector = load_detector("vovdet_nano.voc")
    proof = Proof(to_pictures(photographs)[0])
    facts = export(detector, tmp_path / "engine", "tensorrt", Order(), proof)
    assert facts["exact"]
    exported = vovnet.load_detector(tmp_path / "engine")
    for one, two in zip(detector.detect(photographs), exported.detect(photographs), strict=True):
        compare_found(one, two)
