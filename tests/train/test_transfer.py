import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vovnet.errors import UnknownNameError, VovnetError, WeightsError
from vovnet.models import create_backbone, create_detector, create_model
from vovnet.models.convert import convert, from_timm_to_official, to_timm
from vovnet.models.weights import save_tensors
from vovnet.train.optimizers import make_optimizers
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.transfer import begin_from, freeze, transfer_weights

PETS = ("cat", "dog")


def weights_of(detector) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in detector.network.state_dict().items()}


def test_all_but_the_classes_is_kept():
    source, target = create_detector("vovdet_nano", PETS), create_detector("vovdet_nano", ("a",))
    own = weights_of(target)
    transfer = transfer_weights(source, target)
    theirs, now = weights_of(source), weights_of(target)
    assert transfer.anew == tuple(f"heads.{i}.classes.2" for i in range(3))
    anew = {k for k in now if k.startswith(transfer.anew)}
    assert all(torch.equal(now[k], own[k]) for k in anew)
    assert all(torch.equal(now[k], theirs[k]) for k in now.keys() - anew)
    assert str(transfer) == (
        f"{len(now) - len(anew)} tensors kept; begun anew: {', '.join(transfer.anew)}"
    )


@pytest.mark.parametrize(
    ("names", "kept"), [(PETS, True), (PETS[::-1], False), (("a", "b"), False)]
)
def test_layers_of_classes_are_kept_for_the_same_classes_only(names, kept):
    source, target = create_detector("vovdet_nano", PETS), create_detector("vovdet_nano", names)
    assert (transfer_weights(source, target).anew == ()) is kept


def test_another_detector_on_the_same_backbone_gives_that():
    source = create_detector("dsod300-vovnet27_slim", PETS)
    target = create_detector("refinedet320-vovnet27_slim", PETS)
    transfer = transfer_weights(source, target)
    theirs, now = weights_of(source), weights_of(target)
    backbone = [k for k in now if k.startswith("backbone.") and k in theirs]
    assert backbone
    assert all(torch.equal(now[k], theirs[k]) for k in backbone)
    assert not any(part.startswith("backbone.stem") for part in transfer.anew)


def test_so_does_one_that_keeps_it_in_a_pyramid():
    source = create_detector("dsod300-vovnet27_slim", PETS)
    target = create_detector("fasterrcnn_lite-vovnet27_slim", PETS)
    transfer = transfer_weights(source, target)
    theirs, own = source.network.backbone, target.network.pyramid.backbone
    now = theirs.state_dict()
    assert all(torch.equal(value, now[key]) for key, value in own.state_dict().items())
    assert transfer.kept == len(own.state_dict())
    assert transfer.anew
    assert not any("backbone" in part for part in transfer.anew)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A classifier's weights as they are released, and converted from there; its backbone."""
    folder = tmp_path_factory.mktemp("released")
    classifier = create_model("vovnet27_slim", 5, stem="strided", identity=True)
    names = from_timm_to_official(to_timm(classifier.state_dict())[1])
    torch.save(names, folder / "released.pth")
    convert(folder / "released.pth", folder / "converted.safetensors")
    return folder / "converted.safetensors", classifier.backbone.state_dict()


@pytest.mark.parametrize("name", ["dsod300-vovnet27_slim", "fasterrcnn_lite-vovnet27_slim"])
def test_a_converted_backbone_begins_a_detector(released, name):
    path, theirs = released
    target = create_detector(name, PETS)
    transfer = begin_from(str(path), target)
    backbone = getattr(target.network, "pyramid", target.network).backbone
    shared = backbone.state_dict()
    assert transfer.kept == len(shared)
    assert all(torch.equal(value, theirs[key]) for key, value in shared.items())
    assert not any("backbone" in part for part in transfer.anew)
    assert len(transfer.anew) <= 5  # whole parts, not each of their layers
    assert "their backbone's identity was True, this one's is False" in str(transfer)
    assert "their backbone's stem was strided, this one's is pooled" in str(transfer)


def test_what_is_equal_is_not_told(tmp_path):
    classifier = create_model("vovnet27_slim", 5)
    source, path = tmp_path / "timm.safetensors", tmp_path / "ours.safetensors"
    save_file(to_timm(classifier.state_dict())[1], source)
    convert(source, path)
    assert begin_from(str(path), create_detector("dsod300-vovnet27_slim", PETS)).differing == ()


def test_a_backbone_that_fits_nowhere_is_refused(released):
    with pytest.raises(WeightsError, match="vovnet27_slim: nothing in them fits pelee304"):
        begin_from(str(released[0]), create_detector("pelee304-peleenet", PETS))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"model": "vovnet39", "settings": {}}, "likely cause"),
        ({"model": "vovnet27_slim", "settings": {"stem": "odd", "height": 3}}, "no backbone"),
        ({"settings": {}}, "no backbone"),
    ],
)
def test_backbones_with_false_metadata(tmp_path, facts, message):
    path = tmp_path / "odd.safetensors"
    tensors = create_backbone("vovnet27_slim").state_dict()
    save_tensors(path, tensors, facts | {"num_classes": 0})
    with pytest.raises(WeightsError, match=message):
        begin_from(str(path), create_detector("dsod300-vovnet27_slim", PETS))


def test_a_wider_vovdet_grows_out_of_a_narrower_one(randomise_norms):
    source, target = create_detector("vovdet_nano", PETS), create_detector("vovdet_small", PETS)
    randomise_norms(source.network)
    images = torch.rand(2, 3, 64, 64)
    transfer = transfer_weights(source, target)
    assert transfer == (len(target.network.state_dict()), (), True, ())
    assert str(transfer).endswith("tensors kept, and grown wider, none begun anew")
    for train in (False, True):
        expected, found = (d.network.train(train)(images) for d in (source, target))
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    sum(part.square().sum() for part in target.network(images)).backward()
    last = target.network.heads[0].box[-1]
    assert last.weight.grad[:, 64:].abs().max() > 0  # what is new can learn


def test_grown_detectors_begin_other_classes_anew():
    source, target = create_detector("vovdet_nano", PETS), create_detector("vovdet_small", ("a",))
    own = weights_of(target)
    transfer = transfer_weights(source, target)
    assert transfer.anew == tuple(f"heads.{i}.classes.2" for i in range(3))
    assert all(torch.equal(weights_of(target)[k], own[k]) for k in own if ".classes.2." in k)


def test_a_vovdet_does_not_shrink():
    source, target = create_detector("vovdet_small", PETS), create_detector("vovdet_nano", PETS)
    assert not transfer_weights(source, target).grown


def test_weights_that_fit_nowhere_are_refused():
    source = create_detector("ssd300-mobilenet_v1", PETS)
    target = create_detector("vovdet_nano", PETS)
    with pytest.raises(WeightsError, match="nothing in them fits vovdet_nano"):
        transfer_weights(source, target)


def test_frozen_parts_do_not_learn():
    network = create_detector("vovdet_nano", PETS).network
    [part] = freeze(network, ["backbone.stem"])
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert isinstance(part, nn.Module)
    assert frozen == {n for n, _ in network.named_parameters() if n.startswith("backbone.stem.")}


@pytest.mark.parametrize("name", ["dsod300-vovnet27_slim", "fasterrcnn_lite-vovnet27_slim"])
def test_a_backbone_is_frozen_wherever_it_is(name):
    network = create_detector(name, PETS).network
    backbone = getattr(network, "pyramid", network).backbone
    assert freeze(network, ["backbone", "backbone.stem"]) == [backbone, backbone.stem]
    assert not any(p.requires_grad for p in backbone.parameters())
    assert any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("part", ["backbon", "", "heads.9"])
def test_unknown_parts(part):
    with pytest.raises(UnknownNameError, match="unknown part to freeze"):
        freeze(create_detector("vovdet_nano", PETS).network, [part])


def test_something_must_be_left_to_learn():
    network = create_detector("vovdet_nano", PETS).network
    freeze(network, ["backbone", "neck", "heads"])
    with pytest.raises(VovnetError, match="nothing left to learn"):
        make_optimizers(network, recipe_from_dict({"model": "vovdet_nano", "data": ["a"], "lr": 1}))
