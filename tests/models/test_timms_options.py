"""`create_model` with timm's options gives what timm gives."""

import pytest
import timm
import torch
from torch import nn

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.models import create_model
from vovnet.models.vovnet import SPECS

VOVNETS = (
    *("vovnet39a", "vovnet57a", "ese_vovnet19b_slim_dw", "ese_vovnet19b_dw"),
    *("ese_vovnet19b_slim", "ese_vovnet39b", "ese_vovnet57b", "ese_vovnet99b"),
)
OTHERS = ("resnet50", "resnet101", "densenet121", "densenet161", "densenet201")
CHOICES = (None, (0, 1, 2, 3, 4), (1, 3), [4], (-1,), 2, (0,), range(1, 4))


def images(channels: int = 3, side: int = 75) -> torch.Tensor:
    shape = (2, channels, side, side + 15)  # neither side is a multiple of anything
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def both(name: str, **options) -> tuple[nn.Module, nn.Module]:
    """Ours and timm's with `features_only`, on meta."""
    if options.get("out_indices", 0) is None:
        del options["out_indices"]
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False, features_only=True, **options)
        return create_model(name, features_only=True, **options), theirs


def load(ours: nn.Module, theirs: nn.Module) -> None:
    """timm's tensors into ours, every one: what timm leaves out ours leaves out too."""
    state = {
        k.replace("stem_", "stem.").replace("stages_", "stages."): v
        for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(state, strict=True)


def assert_alike(mine: torch.Tensor, other: torch.Tensor) -> None:
    """To 1e-5 of the largest value, for untrained activations can be large."""
    assert mine.shape == other.shape
    assert other.std() > 1e-3, "a dead output would equal anything"
    assert (mine - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())


def as_timm_has_it(network: nn.Module) -> dict[str, object]:
    """All that `feature_info` says."""
    info = network.feature_info
    return {
        "channels": info.channels(),
        "reduction": info.reduction(),
        "module_name": info.module_name(),
        "one": (info.channels(2), info.reduction(0), info.module_name(4)),
        "some": (info.channels([0, 3]), info.reduction((1,)), info.get("index")),
        "dicts": info.get_dicts(),
        "keys": info.get_dicts(["num_chs", "reduction"]),
        "dict": (info.get_dicts(idx=1), info.get_dicts(["module"], [4, 0])),
        "all": [*info],
        "item": (info[-1], len(info)),
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_feature_info_is_timms(choice):
    ours, theirs = both("ese_vovnet39b", out_indices=choice)
    assert as_timm_has_it(ours) == as_timm_has_it(theirs)
    with torch.device("meta"):
        maps, expected = ours(torch.empty(1, 3, 75, 90)), theirs(torch.empty(1, 3, 75, 90))
    assert isinstance(maps, list)
    assert [x.shape for x in maps] == [x.shape for x in expected]
    assert ours.feature_info.channels() == [x.shape[1] for x in maps]
    # What no map needs is not there to be trained in vain.
    assert len(ours.state_dict()) == len(theirs.state_dict())


@pytest.mark.parametrize("name", VOVNETS)
@torch.no_grad()
def test_feature_maps_are_timms(name, randomise_norms):
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, features_only=True).eval()
    randomise_norms(theirs)
    ours = create_model(name, features_only=True).eval()
    assert as_timm_has_it(ours) == as_timm_has_it(theirs)
    load(ours, theirs)
    for mine, other in zip(ours(images()), theirs(images()), strict=True):
        assert_alike(mine, other)


@pytest.mark.parametrize("name", OTHERS)
def test_torchvisions_networks_have_timms_taps(name):
    ours, theirs = both(name)
    for what in ("channels", "reduction"):
        assert as_timm_has_it(ours)[what] == as_timm_has_it(theirs)[what]
    with torch.device("meta"):
        maps, expected = ours(torch.empty(1, 3, 75, 90)), theirs(torch.empty(1, 3, 75, 90))
    assert [x.shape for x in maps] == [x.shape for x in expected]


@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
@torch.no_grad()
def test_torchvisions_feature_maps_are_timms(name, randomise_norms):
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False, features_only=True).eval()
    randomise_norms(theirs)
    ours = create_model(name, features_only=True).eval()
    state = {k.replace("features_", "features."): v for k, v in theirs.state_dict().items()}
    missing, extra = ours.backbone.body.load_state_dict(state, strict=False)
    assert (missing, extra) == ([], [])
    for mine, other in zip(ours(images()), theirs(images()), strict=True):
        assert_alike(mine, other)


def test_a_name_of_timms_and_a_network_without_a_twin():
    with torch.device("meta"):
        ours = create_model("timm:resnet18", features_only=True, out_indices=(2, 4), in_chans=1)
        theirs = timm.create_model(
            "resnet18", pretrained=False, features_only=True, out_indices=(2, 4), in_chans=1
        )
        image = torch.empty(1, 1, 64, 64)
        assert [x.shape for x in ours(image)] == [x.shape for x in theirs(image)]
        own = create_model("peleenet", features_only=True, out_indices=1)
        assert [x.shape[1] for x in own(torch.empty(1, 3, 64, 64))] == own.feature_info.channels()
    assert as_timm_has_it(ours) == as_timm_has_it(theirs)


def test_taps_come_in_the_order_they_were_asked_for():
    with torch.device("meta"):
        for name in ("vovnet39", "resnet50"):
            ours = create_model(name, features_only=True, out_indices=(3, 1))
            maps = ours(torch.empty(1, 3, 64, 64))
            assert [x.shape[1] for x in maps] == ours.feature_info.channels()
            assert [64 // x.shape[2] for x in maps] == ours.feature_info.reduction() == [16, 4]


def test_the_papers_stem_is_tapped_at_its_end():
    """timm's network with that stem (stem_stride=2) says 64 channels where there are 128."""
    with torch.device("meta"):
        for ours in (
            create_model("vovnet39", features_only=True),
            create_model("vovnet39a", features_only=True, stem="pooled"),
        ):
            first = ours(torch.empty(1, 3, 64, 64))[0]
            assert first.shape == (1, 128, 32, 32)
            tap = ours.feature_info[0]
            assert (tap["num_chs"], tap["reduction"], tap["module"]) == (128, 2, "stem.2")


@pytest.mark.parametrize("name", ["vovnet39", "ese_vovnet19b_dw"])
def test_all_taps_load_a_backbones_weights(name):
    """So that weights that were fetched fit."""
    state = create_model(name, 0).state_dict()
    create_model(name, features_only=True).load_state_dict(state, strict=True)


@pytest.mark.parametrize("channels", [1, 4])
@torch.no_grad()
def test_images_of_other_channels_as_in_timm(channels, randomise_norms):
    torch.manual_seed(0)
    theirs = timm.create_model(
        "ese_vovnet19b_slim_dw", pretrained=False, num_classes=5, in_chans=channels
    ).eval()
    randomise_norms(theirs)
    ours = create_model("ese_vovnet19b_slim_dw", 5, in_chans=channels).eval()
    ours.head.load_state_dict(theirs.head.fc.state_dict())
    body = {k: v for k, v in theirs.state_dict().items() if not k.startswith("head.")}
    ours.backbone.load_state_dict(body)
    assert_alike(ours(images(channels)), theirs(images(channels)))
    fresh, other = (
        network.get_parameter("stem.0.conv.weight").std()
        for network in (
            create_model("vovnet39a", 0, in_chans=channels),
            create_model("vovnet39a", 0),
        )
    )
    assert 0.8 < fresh / other < 1.25  # begun like the rest


@pytest.mark.parametrize(
    "name", [*SPECS, "resnet50", "densenet121", "squeezenet1_1", "alexnet", "densenet67"]
)
def test_every_kind_of_backbone_takes_other_channels(name):
    with torch.device("meta"):
        backbone = create_model(name, 0, in_chans=5)
        image = torch.empty(2, 5, 64, 64)
        plain = create_model(name, 0)(torch.empty(2, 3, 64, 64))
        assert [x.shape for x in backbone(image)] == [x.shape for x in plain]
        assert backbone.map_sides(64) == tuple(x.shape[-1] for x in plain)
        assert create_model(name, 7, in_chans=5)(image).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["vovnet27_slim", "resnet50", "mobilenet_v2", "densenet121", "timm:resnet18"]
)
def test_dropout_before_the_classifier_in_training_alone(name):
    torch.manual_seed(0)
    network = create_model(name, 4, drop_rate=0.5)
    assert network.state_dict().keys() == create_model(name, 4).state_dict().keys()
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(images(side=64)), network(images(side=64)))
        for module in network.modules():  # only dropout remains to tell the two apart
            if type(module).__name__ in {"Dropout", "DroppedLinear", "ResNet"}:
                module.training = True
        assert not torch.equal(network(images(side=64)), network(images(side=64)))


def test_a_layer_behind_dropout_begins_as_without():
    heads = []
    for rate in (0.0, 0.5):
        torch.manual_seed(0)
        heads.append(create_model("shufflenet_v2_x0_5", 4, drop_rate=rate).fc)
    assert all(map(torch.equal, heads[0].parameters(), heads[1].parameters()))


def test_the_rate_of_dropout_reaches_it():
    assert create_model("vovnet27_slim", 4, drop_rate=0.3).drop.p == 0.3
    assert create_model("resnet50", 4, drop_rate=0.3).fc.drop_rate == 0.3
    assert create_model("mobilenet_v2", 4, drop_rate=0.3).classifier[0].p == 0.3
    assert create_model("mobilenet_v2", 4).classifier[0].p == 0.2  # torchvision's own
    assert create_model("vovnet27_slim", 4).drop.p == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vovdet_nano", {"features_only": True}, "vovdet_nano: features_only can be changed on ba"),
        ("dsod300-vovnet27_slim", {"in_chans": 1, "drop_rate": 0.1}, "in_chans, drop_rate can be"),
        ("vovdet_nano", {"out_indices": (1,)}, "vovdet_nano: out_indices can be changed on backbo"),
        ("osa_5x43", {"in_chans": 1}, "osa_5x43: in_chans can be changed on backbones only"),
        ("vovnet39", {"out_indices": (1,)}, "vovnet39: out_indices chooses feature maps; give fea"),
        ("vovnet39", {"features_only": True, "out_indices": (5,)}, r"taps [5] do not exist; out_i"),
        ("vovnet39", {"features_only": True, "out_indices": (-6,)}, r"taps [-6] do not exist"),
        ("vovnet39", {"features_only": True, "out_indices": ()}, "no taps chosen; out_indices tak"),
        ("vovnet39", {"features_only": True, "out_indices": 6}, "the last 6 taps: must be 1..5"),
        ("resnet50", {"features_only": True, "out_indices": 0}, "the last 0 taps: must be 1..5"),
        ("resnet50", {"features_only": True, "ese": "all"}, "ese can be changed on VoVNets only"),
        ("vovnet39", {"in_chans": 0}, "vovnet39: in_chans 0: must be at least 1"),
        ("vovnet39", {"drop_rate": 1.0}, "vovnet39: drop_rate 1.0: must be at least 0 and below"),
        ("vovnet39", {"num_classes": True}, "the second argument is num_classes, a number"),
        ("ese_vovnet39b", {"pretrained": True}, "vovnet fetch hf:timm/ese_vovnet39b.ra_in1k; then"),
        ("vovnet39", {"pretrained": True}, "no pretrained weights of it are published; vovnet fet"),
        ("vovdet_nano", {"pretrained": True}, "no pretrained weights of it are published"),
        ("timm:resnet18", {"pretrained": True}, "no pretrained weights of it are published"),
        ("timm:resnet19", {"features_only": True}, "unknown timm model 'resnet19'"),
        ("timm:vit_tiny_patch16_224", {"features_only": True, "in_chans": 0}, "in_chans 0: must"),
    ],
)
def test_what_is_refused_is_one_line(name, options, message):
    with torch.device("meta"), pytest.raises(VovnetError) as error:
        create_model(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_said_first():
    with pytest.raises(
        UnknownNameError, match=r"unknown model 'ese_vovnet39'. Did you mean ese_vo"
    ):
        create_model("ese_vovnet39", pretrained=True, features_only=True)
