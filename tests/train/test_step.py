import math

import pytest
import torch
from torch import nn

from vovnet.data.loader import Batch
from vovnet.data.open import open_dataset
from vovnet.errors import VovnetError, is_out_of_memory
from vovnet.losses import Target
from vovnet.models import create_detector
from vovnet.train.checkpoint import Learned
from vovnet.train.ema import WeightAverage
from vovnet.train.loop import _seeded, train
from vovnet.train.optimizers import make_optimizers
from vovnet.train.recipe import Recipe, recipe_from_dict
from vovnet.train.step import Stepper
from vovnet.train.watch import DivergedError, LossWatch

CPU = torch.device("cpu")


def recipe(**values) -> Recipe:
    base = {"model": "vovdet_nano", "data": ["a"], "lr": 0.01, "amp": "off", "optimizer": "sgd"}
    return recipe_from_dict(base | values)


def stepper(**values) -> Stepper:
    torch.manual_seed(0)
    detector = create_detector("vovdet_nano", ("blue", "red"))
    given = recipe(**values)
    # With the statistics fixed, a step in parts is the step on the whole.
    detector.eval()
    learned = Learned(
        detector.network,
        WeightAverage(detector.network, given.ema_decay),
        make_optimizers(detector.network, given),
        torch.amp.GradScaler("cpu", init_scale=32.0, enabled=given.amp == "fp16"),
    )
    return Stepper(detector, detector.network, learned, given, CPU)


def batch(count: int, first: int = 0, side: int = 64) -> Batch:
    generators = [torch.Generator().manual_seed(first + i) for i in range(count)]
    pixels = torch.stack([torch.randint(255, (side, side, 3), generator=g) for g in generators])
    target = Target(torch.tensor([[8.0, 8.0, 30.0, 30.0]]), torch.tensor([1]))
    return Batch(pixels.to(torch.uint8), [target] * count)


def moved(parts: list[Batch], **values) -> torch.Tensor:
    """Where one step takes the weights."""
    taken = stepper(**values)
    taken(parts, 0.01)
    return torch.cat([p.detach().flatten() for p in taken.learned.network.parameters()])


def crowded(counts: tuple[int, ...]) -> Batch:
    """Images with so many objects."""
    boxes = torch.tensor([[8.0, 8.0, 30.0, 30.0]])
    moves = [torch.arange(n)[:, None].float() % 30 for n in counts]
    targets = [Target(boxes + move, torch.arange(len(move)) % 2) for move in moves]
    return Batch(batch(len(counts)).pixels, targets)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_step_in_parts_is_the_step_on_all_its_images(amp):
    whole = crowded((40, 0, 0, 2))
    parts = [Batch(whole.pixels[i : i + 1], whole.targets[i : i + 1]) for i in range(4)]
    values = {"clip": 0, "weight_decay": 0, "amp": amp}
    start = torch.cat([p.detach().flatten() for p in stepper().detector.parameters()])
    found, wanted = moved(parts, **values) - start, moved([whole], **values) - start
    assert wanted.norm() > 0
    assert (found - wanted).norm() < (1e-4 if amp == "off" else 2e-2) * wanted.norm()


def test_its_terms_are_those_of_all_its_images():
    whole = crowded((40, 0, 0, 2))
    parts = [Batch(whole.pixels[i : i + 2], whole.targets[i : i + 2]) for i in (0, 2)]
    taken = stepper()
    images = taken.detector.normalize(whole.pixels)
    plain = taken.detector.loss(taken.detector(images), whole.targets, (64, 64))
    wanted = {name: value.item() for name, value in plain.items()}
    assert taken([whole], 0.01) == pytest.approx(wanted, rel=1e-5)
    assert stepper()(parts, 0.01) == pytest.approx(wanted, rel=1e-5)


def test_the_sum_of_its_terms_is_watched():
    taken = stepper()
    first, second = (sum(taken([batch(2, i)], 0.01).values()) for i in range(2))
    assert taken.learned.watch.steps == 2
    assert taken.learned.watch.smooth == pytest.approx(0.95 * first + 0.05 * second)


def test_a_step_goes_as_far_as_the_rate_says():
    """SGD without momentum: the rate times the gradient, whatever the recipe's own rate is."""
    values = {"clip": 0, "weight_decay": 0, "momentum": 0, "lr": 5.0}
    start = torch.cat([p.detach().flatten() for p in stepper().detector.parameters()])
    gradient = torch.cat([p.grad.flatten() for p in with_gradients(batch(2)).parameters()])
    for rate in (0.01, 0.02):
        taken = stepper(**values)
        taken([batch(2)], rate)
        there = torch.cat([p.detach().flatten() for p in taken.detector.parameters()])
        torch.testing.assert_close(there - start, -rate * gradient, rtol=1e-3, atol=1e-6)


def with_gradients(images: Batch) -> nn.Module:
    """The same detector after a plain pass back."""
    detector = stepper().detector
    outputs = detector(detector.normalize(images.pixels))
    sum(detector.loss(outputs, images.targets, (64, 64)).values()).backward()
    return detector


@pytest.mark.parametrize("share", [0.1, 10.0])
def test_a_gradient_longer_than_clip_is_cut_to_it(share):
    """The way of SGD's step is the rate times the gradient's length, at most `clip`."""
    gradients = [p.grad for p in with_gradients(batch(2)).parameters()]
    length = float(torch.stack([g.norm() for g in gradients]).norm())
    start = torch.cat([p.detach().flatten() for p in stepper().detector.parameters()])
    values = {"weight_decay": 0, "momentum": 0}
    way = moved([batch(2)], clip=share * length, **values) - start
    assert float(way.norm()) == pytest.approx(0.01 * min(share, 1.0) * length, rel=1e-3)


def test_without_an_average_the_averaged_weights_are_the_weights():
    taken = stepper(ema_decay=0)
    taken([batch(2)], 0.01)
    own, averaged = taken.learned.network.state_dict(), taken.learned.average.network.state_dict()
    assert all(torch.equal(own[key], averaged[key]) for key in own)


def test_a_gradient_that_overflows_is_named():
    taken = stepper()
    next(taken.learned.network.parameters()).register_hook(lambda grad: grad * math.inf)
    with pytest.raises(DivergedError, match="the gradient's norm became"):
        taken([batch(2)], 0.01)


def test_fp16_leaves_out_a_step_that_overflows_and_lowers_its_scale():
    taken = stepper(amp="fp16")
    before = [p.detach().clone() for p in taken.learned.network.parameters()]
    scale = taken.learned.scaler.get_scale()
    handle = next(taken.learned.network.parameters()).register_hook(lambda grad: grad * math.inf)
    taken([batch(1, side=32)], 0.01)
    after = list(taken.learned.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert taken.learned.scaler.get_scale() == scale / 2
    handle.remove()
    taken([batch(1, side=32)], 0.01)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_overflow_in_one_optimizers_kernels_keeps_all_of_them_back():
    taken = stepper(amp="fp16", optimizer="muon")
    muon, _ = taken.learned.optimizers
    before = [p.detach().clone() for p in taken.learned.network.parameters()]
    muon.param_groups[0]["params"][0].register_hook(lambda grad: grad * math.nan)
    taken([batch(1, side=32)], 0.01)
    after = taken.learned.network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert taken.learned.average.updates == 0


class Hungry(nn.Module):
    """Asks for more memory than there is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60)


@pytest.mark.parametrize(
    ("count", "advice"), [(4, "give --accumulate 4 .* or a smaller --imgsz"), (2, "give a smaller")]
)
def test_memory_that_runs_out_comes_with_what_to_lower(count, advice):
    taken = stepper(batch=8, accumulate=2)
    taken.forward = Hungry()
    with pytest.raises(VovnetError, match=f"out of memory with {count} images of 64x64.*{advice}"):
        taken([batch(count)], 0.01)


def test_parts_that_are_advised_share_the_batch_evenly():
    taken = stepper(batch=18, accumulate=3)
    taken.forward = Hungry()
    with pytest.raises(VovnetError, match="give --accumulate 6 "):
        taken([batch(6)], 0.01)


class Bereaved(nn.Module):
    """Hears, in the middle of a step, that a loader's worker was killed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_a_killed_worker_is_not_the_steps_fault():
    taken = stepper()
    taken.forward = Bereaved()
    with pytest.raises(RuntimeError, match="worker") as caught:
        taken([batch(2)], 0.01)
    assert is_out_of_memory(caught.value)


def feed(watch: LossWatch, losses: list[float]) -> None:
    for loss in losses:
        watch.add(loss)


def test_a_loss_that_grows_out_of_hand_is_noticed():
    watch = LossWatch()
    feed(watch, [10.0 - 0.08 * step for step in range(100)])
    with pytest.raises(DivergedError, match="the loss rose from"):
        feed(watch, [2.0 * 1.2**step for step in range(60)])


@pytest.mark.parametrize(
    "losses",
    [
        [5.0, 500.0] + [5.0 - 0.01 * step for step in range(300)],  # one bad batch
        [0.1 + 0.2 * (step % 7) for step in range(300)],
        [30.0] * 20 + [0.5] * 300 + [6.0] * 300,  # mosaics begin: more, but not out of hand
    ],
)
def test_an_uneven_loss_is_not(losses):
    feed(LossWatch(), losses)


def test_a_rate_that_is_far_too_high_is_named_early(voc, tmp_path):
    settings = recipe(
        data=[str(voc)],
        lr=30.0,
        final_lr=1.0,
        warmup=0,
        epochs=200,
        batch=8,
        imgsz=32,
        workers=0,
        clip=0,
    )
    dataset = open_dataset(voc, "train")
    detector = create_detector("vovdet_nano", dataset.names)
    detector.input_spec = detector.input_spec.with_side(32, "vovdet_nano")
    with pytest.raises(DivergedError, match=r"in epoch \d+, step \d+, at lr 30; start again with"):
        train(detector, dataset, settings, tmp_path)


def test_an_image_draws_alike_in_whatever_parts_its_step_comes():
    def batch(count: int) -> Batch:
        target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        return Batch(torch.zeros(count, 2, 2, 3, dtype=torch.uint8), [target] * count)

    def seeds(*counts: int, seed: int = 1, step: int = 5) -> list[int]:
        parts = _seeded([batch(count) for count in counts], seed, step)
        assert [len(part.targets) for part in parts] == list(counts)
        return [target.seed for part in parts for target in part.targets]

    whole = seeds(6)
    assert seeds(3, 3) == seeds(2, 2, 2) == whole
    assert len({*whole, *seeds(6, seed=2), *seeds(6, step=6)}) == 18
