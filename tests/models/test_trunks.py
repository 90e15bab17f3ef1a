"""Backbones by name, in every norm; pairs that no list holds; and what cannot be built."""

import sys

import pytest
import timm
import torch
from torch import nn

from vovnet.errors import MissingExtraError, UnknownNameError, VovnetError
from vovnet.lab import count_models
from vovnet.models import (
    create_backbone,
    create_detector,
    create_model,
    list_backbones,
    list_detectors,
)
from vovnet.models.backbone import Classifier
from vovnet.models.layers import fuse_norms

EVERY = [*list_backbones(), "timm:resnet18", "timm:efficientnet_b0", "timm:hgnetv2_b0"]


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EVERY)
def test_taps_are_as_they_are_described(name):
    with torch.device("meta"):
        backbone = create_backbone(name)
        maps = backbone(torch.empty(2, 3, 256, 256))
    assert [x.shape[1] for x in maps] == [tap.channels for tap in backbone.taps]
    sides = [256 // tap.stride for tap in backbone.taps]
    # AlexNet and SqueezeNet pad less than half a window; the pooled stem's windows reach out.
    assert all(abs(x.shape[-1] - side) <= 2 for x, side in zip(maps, sides, strict=True))
    assert backbone.map_sides(256) == tuple(x.shape[-1] for x in maps)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "peleenet", "timm:efficientnet_b0"])
@pytest.mark.parametrize(
    ("norm", "kind"), [("group", "GroupNorm"), ("sync", "SyncBatchNorm"), ("frozen", "Frozen")]
)
def test_another_norm_replaces_all(name, norm, kind):
    with torch.device("meta"):
        plain, changed = create_backbone(name), create_backbone(name, norm=norm)
    before = sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert before > 10
    assert not any(type(m) is nn.BatchNorm2d for m in changed.modules())
    assert sum(type(m).__name__.startswith(kind) for m in changed.modules()) == before


@pytest.mark.parametrize("name", ["resnet50", "shufflenet_v2_x0_5", "timm:mobilenetv3_small_050"])
def test_normalised_by_groups_an_image_does_not_see_its_neighbours(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, strides=(8, 16, 32), norm="group").train()
    batch = images(64)
    with torch.no_grad():
        # Dropout and stochastic depth are off in these networks.
        for together, alone in zip(backbone(batch), backbone(batch[:1]), strict=True):
            torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)


def test_a_resnets_stride_moves_into_its_first_1x1():
    with torch.device("meta"):
        plain, caffe = create_backbone("resnet50"), create_backbone("resnet50", caffe_stride=True)
    for backbone, strides in ((plain, (1, 2)), (caffe, (2, 1))):
        block = backbone.body.get_submodule("layer2.0")
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides


@torch.no_grad()
def test_timms_maps_and_logits_are_timms():
    ours = create_backbone("timm:resnet18", strides=(8, 16, 32)).eval()
    theirs = timm.create_model("resnet18", pretrained=False, features_only=True).eval()
    theirs.load_state_dict(ours.body.state_dict())
    for mine, other in zip(ours(images(64)), theirs(images(64))[2:], strict=True):
        assert torch.equal(mine, other)
    with torch.device("meta"):
        assert create_model("timm:resnet18", 7).state_dict().keys() == (
            timm.create_model("resnet18", pretrained=False, num_classes=7).state_dict().keys()
        )
        assert isinstance(create_model("vovnet39", 7), Classifier)


@torch.no_grad()
def test_norms_that_hold_their_activation_keep_it_when_folded(randomise_norms):
    backbone = create_backbone("timm:mobilenetv3_small_050").eval()
    randomise_norms(backbone)
    pictures = images(64)
    before = [x.clone() for x in backbone(pictures)]
    fuse_norms(backbone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    for one, other in zip(before, backbone(pictures), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_maps_with_channels_last_are_turned():
    with torch.device("meta"):
        swin = create_backbone("timm:swin_tiny_patch4_window7_224")
        maps = swin(torch.empty(1, 3, 224, 224))
    assert [tuple(x.shape[1:]) for x in maps] == [
        *((96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7))
    ]


@pytest.mark.parametrize(
    ("name", "priors"),
    [
        ("refinedet320-vovnet19_slim", 6375),
        ("refinedet320-timm:resnet18", 6375),
        ("dsod300-resnet50", 8744),
        ("dsod300-squeezenet1_1", None),
        ("dsod300_plain-timm:efficientnet_b0", 8744),
        ("ssd300-timm:mobilenetv3_small_050", 1917),
        ("pelee304-vovnet27_slim", None),
    ],
)
def test_pairs_that_are_not_listed_are_built(name, priors):
    assert name not in list_detectors()
    with torch.device("meta"):
        detector = create_detector(name, ("a", "b")).eval()
        outputs = detector(torch.empty(1, 3, *detector.input_spec.size))
    own = getattr(detector.criterion, "priors", getattr(detector.criterion, "anchors", None))
    assert outputs.offsets.shape == (1, *own.shape)
    assert own.device.type == "cpu"  # real ones, also on a network without numbers
    assert priors in (None, len(own))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dsod300-vovnet27_slm", "unknown backbone 'vovnet27_slm'. Did you mean vovnet27_slim"),
        ("dsod300-timm:resnet_18", "unknown timm model 'resnet_18'. Did you mean resnet18"),
        ("dsod300-timm:", "unknown timm model ''. Known: "),
        ("dsod300", "unknown detector 'dsod300'. Did you mean dsod300-"),
        ("dsod301-vovnet39", "unknown detector 'dsod301-vovnet39'. Did you mean "),
        ("vovnet39", "unknown detector 'vovnet39'. Did you mean "),
        ("vovdet_nano-vovnet39", "vovdet_nano-vovnet39: has a backbone of its own; leave out -vov"),
        ("refinedet320-alexnet", "alexnet: no tap of stride 32; there are 4, 8, 16"),
        ("refinedet320-densenet67", "densenet67: no tap of stride 32; there are 8, 16"),
        ("ssd300-timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224: no tap of stride 32; th"),
        ("ssd300-timm:swin_tiny_patch4_window7_224", "cannot take 300×300 pixels: Input height"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(name, message):
    with torch.device("meta"), pytest.raises(VovnetError) as error:
        create_detector(name, ("a",))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2500


@pytest.mark.parametrize(
    ("name", "side", "masks"),
    [
        ("vovdet_nano", 256, False),
        ("vovdet_small", 320, False),
        ("dsod300-vovnet27_slim", 300, False),
        ("refinedet320-vovnet27_slim", 320, False),
        ("refinedet512-vovnet27_slim", 512, False),
        ("fasterrcnn-vovnet19_slim", 800, False),
        ("fasterrcnn_lite-vovnet19_slim", 800, False),
        ("maskrcnn-vovnet19_slim", 800, True),
        ("maskrcnn_lite-vovnet19_slim", 800, True),
        ("centermask-vovnet39_v2", 800, True),
        ("centermask_lite-vovnet19_slim", 800, True),
    ],
)
def test_families_have_their_own_inputs_and_masks(name, side, masks):
    with torch.device("meta"):
        detector = create_detector(name, ("a",))
    assert (detector.input_spec.size, detector.masks) == ((side, side), masks)


def test_no_classes():
    with pytest.raises(VovnetError, match="dsod300-vovnet27_slim: no class names; give at least"):
        create_detector("dsod300-vovnet27_slim", ())
    for name, count in (("timm:resnet18", -1), ("pelee304-peleenet", 1), ("vovdet_nano", 0)):
        with pytest.raises(VovnetError, match=f"^{name}: .*{count} classes.*give more"):
            create_model(name, count)


@pytest.mark.parametrize("name", ["vovnet39", "alexnet", "timm:resnet18", "peleenet"])
def test_taps_that_do_not_exist(name):
    with torch.device("meta"):
        backbone = create_backbone(name)
    with pytest.raises(VovnetError, match=rf"^{name}: taps \[17\] do not exist; there are 0\.\."):
        backbone.select([0, 17])
    with pytest.raises(VovnetError, match=f"^{name}: no tap of stride 64; there are "):
        create_backbone(name, strides=(8, 64))


@pytest.mark.parametrize(
    ("name", "side"), [("vovnet39", 8), ("alexnet", 16), ("pelee304-peleenet", 16)]
)
def test_images_too_small_for_the_strides(name, side):
    with pytest.raises(VovnetError, match=f"^{name}: cannot take {side} pixels") as error:
        count_models([name], side)
    assert "\n" not in str(error.value)


def test_a_backbone_says_itself_what_it_cannot_take():
    with torch.device("meta"):
        backbone = create_backbone("alexnet")
    with pytest.raises(VovnetError, match=r"^alexnet: cannot take 16×16 pixels: "):
        backbone.map_sides(16)


def test_overrides_of_what_a_model_has_not():
    for name in ("resnet50", "timm:resnet18"):
        with pytest.raises(VovnetError, match=f"^{name}: stem can be changed on VoVNets only"):
            create_model(name, 0, stem="pooled")
    with pytest.raises(VovnetError, match=r"^osa_5x43: norm can be changed on backbones only"):
        create_model("osa_5x43", norm="group")


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"timm is not installed.*vovnet\[timm\]"):
        create_backbone("timm:resnet18")
    with pytest.raises(UnknownNameError):  # which needs no timm
        create_backbone("resnet18")
