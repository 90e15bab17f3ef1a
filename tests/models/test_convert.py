"""Weights between timm's, the releases' and our names: outputs must not move."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vovnet.errors import WeightsError
from vovnet.models import create_detector, create_model
from vovnet.models.convert import convert, from_timm_to_official, to_timm
from vovnet.models.weights import load_tensors, save_detector

TIMM = {  # side of the images that are compared
    **dict.fromkeys(("ese_vovnet19b_slim_dw", "ese_vovnet19b_dw", "ese_vovnet19b_slim"), 96),
    **dict.fromkeys(("vovnet39a", "vovnet57a"), 75),  # a multiple of no stride
    **dict.fromkeys(("ese_vovnet39b", "ese_vovnet57b", "ese_vovnet99b"), 64),
}


@pytest.mark.parametrize(("name", "side"), TIMM.items())
@torch.no_grad()
def test_outputs_equal_timms(name, side, tmp_path, randomise_norms):
    torch.manual_seed(0)  # some initialisations all but ignore the image
    theirs = timm.create_model(name, pretrained=False, num_classes=5).eval()
    randomise_norms(theirs)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    result = convert(tmp_path / "timm.safetensors", tmp_path / "ours.safetensors")
    assert (result.source, result.model, result.num_classes) == ("timm", name, 5)
    tensors, metadata = load_tensors(tmp_path / "ours.safetensors")
    with torch.device("meta"):
        ours = create_model(metadata["model"], metadata["num_classes"], **metadata["settings"])
    ours.eval().load_state_dict(tensors, assign=True)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = theirs(images)
    assert expected.std() > 1e-3, "a dead output would equal anything"
    assert not torch.allclose(expected[0], expected[1], rtol=1e-3), "the image must matter"
    # To 1e-5 of the largest value, for untrained activations can be large.
    assert (ours(images) - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    convert(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", "timm")
    theirs.load_state_dict(load_file(tmp_path / "back.safetensors"), strict=True)
    assert torch.equal(theirs(images), expected)


@pytest.mark.parametrize("name", ["vovnet39a", "ese_vovnet19b_dw"])
def test_there_and_back_gives_the_same_file(name, tmp_path):
    first = timm.create_model(name, pretrained=False, num_classes=3).state_dict()
    save_file(first, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "official")
    convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "ours")
    convert(tmp_path / "c.safetensors", tmp_path / "d.safetensors", "timm")
    last = load_file(tmp_path / "d.safetensors")
    assert last.keys() == first.keys()
    assert all(torch.equal(last[k], first[k]) for k in first)


def test_official_names():
    """Names as the released checkpoints have them."""
    state = create_model("vovnet19_dw", 0).state_dict()
    official = from_timm_to_official(state)
    assert {
        "stem.stem_1/conv.weight",
        "stem.stem_1/norm.running_mean",
        "stem.stem_2/dw_conv3x3.weight",
        "stem.stem_3/pw_norm.bias",
        "stage2.OSA2_1.conv_reduction.OSA2_1_reduction_0/conv.weight",
        "stage3.OSA3_1.layers.0.OSA3_1_0/dw_conv3x3.weight",
        "stage3.OSA3_1.layers.2.OSA3_1_2/pw_norm.weight",
        "stage5.OSA5_1.concat.OSA5_1_concat/norm.bias",
        "stage5.OSA5_1.ese.fc.weight",
    } <= official.keys()
    assert len(official) == len(state)


@pytest.mark.parametrize("prefix", ["backbone.bottom_up.", "backbone.body.", "module."])
def test_released_v1_is_known_in_a_detector(prefix, tmp_path):
    """The released V1 strides its stem and adds the identity, whatever the paper says."""
    state = create_model("vovnet39", 0, stem="strided", identity=True).state_dict()
    # Detection frameworks freeze their norms, which then have no step counter.
    official = {
        prefix + k: v
        for k, v in from_timm_to_official(state).items()
        if not k.endswith("num_batches_tracked")
    }
    torch.save({"model": official | {"roi_heads.x": torch.zeros(1)}}, tmp_path / "v1.pth")
    result = convert(tmp_path / "v1.pth", tmp_path / "ours.safetensors")
    assert result.source == "official"
    assert (result.model, result.num_classes) == ("vovnet39", 0)
    assert result.settings == {"stem": "strided", "identity": True}
    tensors, _ = load_tensors(tmp_path / "ours.safetensors")
    create_model("vovnet39", 0, **result.settings).load_state_dict(tensors)
    again = convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors")
    assert again[1:4] == result[1:4]  # what no tensor tells is remembered


def test_a_backbone_is_taken_out_of_our_own_detector(tmp_path):
    detector = create_detector("vovdet_nano", ("a",))
    state = create_model("vovnet27_slim", 0).state_dict()
    parts = {f"backbone.{k}": v for k, v in state.items()} | {"heads.0.norm.scale": torch.ones(1)}
    save_file(parts, tmp_path / "dsod.safetensors")
    result = convert(tmp_path / "dsod.safetensors", tmp_path / "out.safetensors")
    assert (result.model, result.tensors) == ("vovnet27_slim", len(state))
    save_detector(tmp_path / "nano.safetensors", detector)
    with pytest.raises(WeightsError, match="fits no VoVNet"):  # its backbone is its own
        convert(tmp_path / "nano.safetensors", tmp_path / "out.safetensors")


def test_released_v2_gates_every_module():
    state = create_model("vovnet39_v2", 0).state_dict()
    dialect, names = to_timm(from_timm_to_official(state))
    assert dialect == "official"
    assert names.keys() == state.keys()
    assert sum(k.endswith("attn.fc.weight") for k in names) == 6


def test_what_does_not_fit_is_listed(tmp_path):
    state = create_model("vovnet27_slim", 0).state_dict()
    del state["stem.0.conv.weight"]
    state["stages.0.blocks.0.extra"] = torch.zeros(1)
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"nearest is vovnet27_slim.*stem\.0\.conv\.weight") as e:
        convert(tmp_path / "broken.safetensors", tmp_path / "out.safetensors")
    assert "stages.0.blocks.0.extra" in str(e.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"error: x", b"hello"])
def test_garbage_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError) as e:
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors")
    assert "\n" not in str(e.value)
