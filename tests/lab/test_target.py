import pytest
import torch
from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.lab.target import open_target, random_images, reference_outputs
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.weights import save_detector


def opened(name, *arguments, **options):
    with torch.device("meta"):
        return open_target(name, *arguments, **options)


@pytest.mark.parametrize(
    ("name", "side", "classes"),
    [
        ("vovnet27_slim", 224, 1000),
        ("osa_12x20", 32, 10),
        ("dsod300-vovnet27_slim", 300, 21),
        ("timm:resnet18", 224, 1000),
        ("torchvision:mobilenet_v2", 224, 1000),
        ("torchvision:ssdlite320_mobilenet_v3_large", 320, 91),
    ],
)
def test_names_and_their_own_sizes(name, side, classes):
    target = opened(name)
    assert (target.name, target.imgsz, target.num_classes) == (name, side, classes)
    assert not target.network.training
    assert (target.detector is None) == (not name.startswith("dsod"))


def test_weights_bring_their_classes_and_accuracy(nano):
    target = open_target(str(nano), 96)
    assert (target.imgsz, target.num_classes) == (96, 2)
    assert isinstance(target.detector, Detector)
    assert target.detector.input_spec.size == (96, 96)


def test_sizes_and_classes_that_are_asked_for():
    assert opened("vovnet27_slim", 96, 7).imgsz == 96
    assert opened("torchvision:resnet18", num_classes=7).network.fc.out_features == 7
    assert opened("vovdet_nano", 64).detector.input_spec.size == (64, 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vovnet3", "Did you mean vovnet39"),
        ("torchvision:resnet19", "Did you mean resnet1"),
        ("timm:resnet1e", "Did you mean"),
        ("nowhere.onnx", "nowhere.onnx: cannot read"),
        ("nowhere.safetensors", "no such weights file"),
    ],
)
def test_names_that_mean_nothing(name, words):
    with pytest.raises(VovnetError, match=words):
        open_target(name)


def test_options_that_do_not_fit(nano):
    with pytest.raises(VovnetError, match="--imgsz 0: must be at least 1"):
        open_target("vovnet39", 0)
    with pytest.raises(VovnetError, match="ready made; leave out --num-classes"):
        open_target(str(nano), num_classes=3)
    with pytest.raises(VovnetError, match="takes 300 pixels only"):
        opened("dsod300-vovnet27_slim", 320)
    assert issubclass(UnknownNameError, VovnetError)


def test_a_torchvision_detector_takes_one_tensor():
    target = open_target("torchvision:ssdlite320_mobilenet_v3_large", num_classes=3)
    (found,) = target.network(torch.zeros(1, 3, 320, 320))
    assert found.keys() == {"boxes", "labels", "scores"}
    assert target.counts(1, 4) is None  # its shapes depend on its numbers


def test_the_same_name_gives_the_same_network_and_images():
    before = torch.random.get_rng_state()
    first, second = (open_target("osa_12x20").network.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.random.get_rng_state(), before)
    cpu = torch.device("cpu")
    assert torch.equal(random_images(2, 8, cpu), random_images(2, 8, cpu))
    assert not torch.equal(random_images(2, 8, cpu), random_images(2, 8, cpu, seed=1))


def test_reference_outputs_are_flat_in_order():
    class Two(nn.Module):
        def forward(self, images):
            return {"b": images.mean(), "a": [images.double().sum()]}

    images = torch.ones(1, 3, 2, 2)
    flat, _ = reference_outputs(Two(), images)
    assert [tensor.item() for tensor in flat] == [1.0, 12.0]
    assert {tensor.dtype for tensor in flat} == {torch.float32}


@pytest.mark.parametrize(("name", "background"), [("vovdet_nano", 0), ("ssd300-mobilenet_v1", 1)])
def test_classes_of_weights_are_the_networks_own(name, background, tmp_path):
    """With the background where the network has a column for it."""
    path = tmp_path / "x.safetensors"
    save_detector(path, create_detector(name, ("a", "b", "c")))
    assert open_target(str(path)).num_classes == 3 + background
