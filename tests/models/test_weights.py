import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vovnet.errors import UnknownNameError, VovnetError, WeightsError
from vovnet.files import write_atomically
from vovnet.models import create_detector
from vovnet.models.detector import Detector
from vovnet.models.weights import (
    detector_metadata,
    load_detector,
    load_metadata,
    load_tensors,
    save_detector,
    save_tensors,
)
from vovnet.shipped import SHIPPED, default_weights, weights_path

NAMES = ("cat", "dog", "très long")
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def detector() -> Detector:
    detector = create_detector("vovdet_nano", NAMES).eval()
    detector.input_spec = detector.input_spec.with_side(128, "vovdet_nano")
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return detector


@pytest.fixture
def weights(tmp_path, detector) -> Path:
    path = tmp_path / "weights.safetensors"
    save_detector(path, detector, licence="CC0-1.0", metrics={"map_50": 0.5})
    return path


def refusal(action, *arguments, kind=WeightsError, **options) -> str:
    with pytest.raises(kind) as caught:
        action(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def test_round_trip_is_exact(weights, detector):
    again = load_detector(weights)
    own, loaded = detector.network.state_dict(), again.network.state_dict()
    assert own.keys() == loaded.keys()
    assert all(torch.equal(own[k], loaded[k]) and own[k].dtype == loaded[k].dtype for k in own)
    with torch.inference_mode():
        for a, b in zip(again(IMAGES), detector(IMAGES), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # channels-last kernels
    assert not again.training
    assert again.names == NAMES
    assert again.input_spec == detector.input_spec
    kernel = again.network.backbone.stem[0].conv.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_metadata(weights, detector):
    metadata = load_metadata(weights)
    assert metadata == {
        "model": "vovdet_nano",
        "names": list(NAMES),
        "input": json.loads(json.dumps(detector.input_spec.to_dict())),
        "licence": "CC0-1.0",
        "metrics": {"map_50": 0.5},
    }
    assert load_detector(weights).metadata == metadata


def test_half_is_close_and_half_the_size(tmp_path, weights, detector):
    path = tmp_path / "half.safetensors"
    save_detector(path, detector, half=True)
    assert path.stat().st_size < 0.55 * weights.stat().st_size
    again = load_detector(path)
    own = detector.network.state_dict()
    for key, value in again.network.state_dict().items():
        assert value.dtype == own[key].dtype
        assert (value - own[key]).abs().max() <= 1e-3 * own[key].abs().max() + 1e-7
    with torch.inference_mode():
        for a, b in zip(again(IMAGES), detector(IMAGES), strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


def test_options_of_loading(weights, detector):
    assert load_detector(weights, imgsz=96).input_spec.size == (96, 96)
    refusal(load_detector, weights, imgsz=100, kind=VovnetError)
    fused = load_detector(weights, "vovdet_nano", fuse=True)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    with torch.inference_mode():
        for a, b in zip(fused(IMAGES), detector(IMAGES), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_weights_of_another_model(weights):
    message = refusal(load_detector, weights, "dsod300-vovnet27_slim")
    assert message.startswith(str(weights))
    assert "for vovdet_nano, not for dsod300-vovnet27_slim" in message


def test_names_of_shipped_weights():
    for name, path in SHIPPED.items():
        assert weights_path(name) == path
    first = {name.partition(".")[0]: name for name in reversed(SHIPPED)}
    assert {model: default_weights(model) for model in first} == first
    assert first["dsod300-vovnet27_slim"] == "dsod300-vovnet27_slim.voc"  # everyday classes
    message = refusal(load_detector, "vovdet_nano.vco", kind=UnknownNameError)
    assert message.startswith("unknown weights 'vovdet_nano.vco'. Did you mean vovdet_nano.voc")
    message = refusal(default_weights, "vovdet_nan", kind=UnknownNameError)
    assert "Did you mean vovdet_nano" in message


def test_a_file_may_have_any_name(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights.rename("best")
    assert load_detector("best").names == NAMES


@pytest.mark.parametrize("name", ["gone.safetensors", "folder/gone", "."])
def test_missing_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    message = refusal(load_detector, name)
    what = "no best or last weights in it" if name == "." else "no such weights file"
    assert message.startswith(f"{name}: {what}")


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_pickles_are_refused_and_not_run(tmp_path, kind):
    path, trace = tmp_path / "yolo.pt", tmp_path / "ran"
    bomb = {"model": Bomb(str(trace))}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=kind == "zip")
    message = refusal(load_detector, path)
    assert message.startswith(str(path))
    assert "pickled checkpoint, which can run code" in message
    assert ".safetensors" in message
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 3, 8, 500, -1, -1000])
def test_truncated_file(weights, kept):
    weights.write_bytes(weights.read_bytes()[:kept])
    message = refusal(load_detector, weights)
    assert message.startswith(f"{weights}: not a readable safetensors file (")


def test_foreign_files(tmp_path):
    path = tmp_path / "timm.safetensors"
    tensors = {"stem.0.conv.weight": torch.zeros(2, 2)}
    save_file(tensors, path)
    assert "no vovnet metadata inside" in refusal(load_detector, path)
    save_file(tensors, path, {"vovnet": "{'model': "})
    assert "its metadata is not JSON" in refusal(load_detector, path)
    save_tensors(path, tensors, {"epoch": 3})  # as a run's optimiser state
    assert "names no model or classes" in refusal(load_detector, path)
    save_tensors(path, tensors, {"model": "vovdet_nan", "names": ["a"]})
    assert "Did you mean vovdet_nano or" in refusal(load_detector, path, kind=UnknownNameError)


def test_tensors_that_do_not_fit_are_named(tmp_path, detector):
    state = detector.network.state_dict()
    kept = dict(list(state.items())[12:])
    gone = sorted(state.keys() - kept.keys())
    reshaped = next(k for k, v in kept.items() if v.ndim == 4)
    kept[reshaped] = torch.zeros(1, 2, 3, 4)
    kept["neck.bogus"] = torch.zeros(3)
    path = tmp_path / "x.safetensors"
    save_tensors(path, kept, {"model": "vovdet_nano", "names": list(NAMES)})
    message = refusal(load_detector, path)
    assert message == (
        f"{path}: does not fit vovdet_nano: tensors 12 missing ({', '.join(gone[:10])}, ...); "
        f"1 extra (neck.bogus); 1 of another shape ({reshaped}); "
        "likely cause: they are another model's"
    )


def test_other_class_count_does_not_fit(tmp_path, detector):
    path = tmp_path / "x.safetensors"
    save_tensors(path, detector.network.state_dict(), {"model": "vovdet_nano", "names": ["a"]})
    message = refusal(load_detector, path)
    assert "6 of another shape (heads.0.classes.2.bias, " in message
    assert message.endswith("likely cause: they are for another number of classes")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(tmp_path, detector, value):
    path = tmp_path / "x.safetensors"
    state = {k: v.clone() for k, v in detector.network.state_dict().items()}
    state["backbone.stem.0.bn.running_var"][3] = value
    save_tensors(path, state, {"model": "vovdet_nano", "names": list(NAMES)})
    assert refusal(load_detector, path) == (
        f"{path}: 1 tensors hold NaN or infinity (backbone.stem.0.bn.running_var); "
        "the training diverged"
    )


@pytest.mark.parametrize(
    "device", ["banana", "", "0", "cpu:banana", "cuda:99", "meta", "hpu", "vulkan"]
)
def test_device_that_cannot_be_used(weights, device):
    message = refusal(load_detector, weights, device=device, kind=VovnetError)
    assert message.startswith(f"device {device}: not usable here (")
    assert message.endswith("); try cpu")
    assert len(message) < 400


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from vovnet.errors import VovnetError
from vovnet.models.weights import save_tensors

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for path in sys.argv[1:]:
    try:
        save_tensors(Path(path), {"x": torch.ones(10_000)}, {"new": True})
    except VovnetError as error:
        print(error)
"""


def test_a_failed_write_keeps_the_old_file(tmp_path):
    """A process that may write files of 20 kB writes 40 kB."""
    path, new = tmp_path / "last.safetensors", tmp_path / "new.safetensors"
    save_tensors(path, {"x": torch.arange(3.0)}, {"old": True})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path, new], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{path}: cannot write: File too large; the previous file is kept",
        f"{new}: cannot write: File too large",
    ]
    tensors, metadata = load_tensors(path)
    assert tensors["x"].tolist() == [0, 1, 2]
    assert metadata == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    message = refusal(write_atomically, file / "x.safetensors", b"data", kind=VovnetError)
    assert message.startswith(f"{file / 'x.safetensors'}: cannot write: ")
    message = refusal(write_atomically, tmp_path, b"data", kind=VovnetError)
    assert message.startswith(f"{tmp_path}: cannot write: Is a directory")
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    write_atomically(tmp_path / "new" / "folder" / "x", b"data")
    assert (tmp_path / "new" / "folder" / "x").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ('["a list"]', "JSON object"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"model": 1' + "0" * 5000 + "}", "not JSON"),
        ('{"model": 3}', "names no model"),
        ('{"model": "vovdet_nano"}', "names no model or classes"),
        *(
            (json.dumps({"model": "vovdet_nano", "names": names}), "names no model or classes")
            for names in ([], ["a", "a"], ["a", 1], [1, 2], "ab", {"a": 1})
        ),
    ],
)
def test_metadata_of_another_shape_is_an_error_of_one_line(metadata, word, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"vovnet": metadata})
    with pytest.raises(WeightsError, match=word) as error:
        load_detector(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [{"pad": 300}, {"mean": [10**400, 0, 0]}, {"size": [100, 100]}, {"size": [64, 100]}],
)
def test_an_input_that_the_model_cannot_take(tmp_path, changed):
    path = tmp_path / "x.safetensors"
    detector = create_detector("vovdet_nano", ("a",))
    facts = detector_metadata(detector)
    facts["input"] |= changed | {"multiple": 4}
    save_tensors(path, detector.network.state_dict(), facts)
    with pytest.raises(WeightsError, match=r"x\.safetensors: its input spec is not understood"):
        load_detector(path)


def test_an_input_spec_of_another_version_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "x.safetensors"
    detector = create_detector("vovdet_nano", ("a",))
    facts = detector_metadata(detector)
    facts["input"]["colour_space"] = "oklab"
    save_tensors(path, detector.network.state_dict(), facts)
    with pytest.raises(WeightsError, match="colour_space"):
        load_detector(path)
