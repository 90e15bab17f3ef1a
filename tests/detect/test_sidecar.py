"""What lies beside an exported model: read back as written, and refused when it does not fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vovnet.detect.sidecar import FORMAT, SIDECAR, Sidecar, file_hash, read_sidecar
from vovnet.errors import WeightsError
from vovnet.input_spec import InputSpec

SPEC = InputSpec((64, 96), "letterbox", (114.0,) * 3, (58.0,) * 3, multiple=32)
PLAIN = Sidecar("vovdet_nano", ("cat", "dog"), SPEC, "onnxruntime", "fp32", {"model.onnx": "?"})


@pytest.fixture
def folder(tmp_path) -> Path:
    """An exported folder as it should be, but that its model is none."""
    (tmp_path / "model.onnx").write_bytes(b"a model")
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changes: Any) -> None:
    """The sidecar of a folder, with some values changed; None takes one away."""
    hashed = {"model.onnx": file_hash(folder / "model.onnx")}
    values = replace(PLAIN, files=hashed).to_dict() | changes
    values = {key: value for key, value in values.items() if value is not None}
    (folder / SIDECAR).write_text(json.dumps(values))


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_sidecar(folder)
    assert str(error.value).startswith(str(folder))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}/")


def test_it_is_read_as_it_was_written(folder):
    full = replace(
        PLAIN,
        files={"model.onnx": file_hash(folder / "model.onnx")},
        outputs="dense",
        batch=None,
        pixels=False,
        masks=True,
        weights="mine.safetensors",
        licence="Apache-2.0",
        versions={"onnxruntime": "1.32"},
        measured={"map_50": 0.5},
    )
    (folder / SIDECAR).write_text(json.dumps(full.to_dict()))
    assert read_sidecar(folder) == full
    assert full.to_dict()["format"] == FORMAT


def test_the_hash_is_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_it_does_not_know_is_passed_over(folder):
    write(folder, of_another_day=1)
    assert read_sidecar(folder).model == "vovdet_nano"


DAMAGED = "; export the model again"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": FORMAT + 1}, "was written by a newer vovnet; update this one"),
        ({"format": None}, "says no format; was it written by vovnet export?"),
        ({"format": "1"}, "says no format; was it written by vovnet export?"),
        ({"names": None}, f"is damaged ('names'){DAMAGED}"),
        ({"input": None}, f"is damaged ('input'){DAMAGED}"),
        ({"input": {"size": [64, 96]}}, None),
        ({"input": SPEC.to_dict() | {"size": [0, 96]}}, None),
        ({"input": 5}, None),
        ({"files": "model.onnx"}, None),
        ({"model": None}, None),
        ({"files": {}}, f"names no file or no class{DAMAGED}"),
        ({"names": []}, f"names no file or no class{DAMAGED}"),
    ],
)
def test_values_that_do_not_fit(folder, changes, told):
    write(folder, **changes)
    message = refusal(folder)
    if told is None:
        assert message.startswith(f"{SIDECAR}: is damaged (")
        assert message.endswith(f"){DAMAGED}")
    else:
        assert message == f"{SIDECAR}: {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON (Expecting property name"),
        ("", "is no JSON (Expecting value"),
        ("[]", "holds no object; export the model again"),
        ("\xff", "is no JSON ('utf-8' codec"),
    ],
)
def test_text_that_is_none_of_ours(folder, text, told):
    (folder / SIDECAR).write_bytes(text.encode("latin-1"))
    assert refusal(folder).startswith(f"{SIDECAR}: {told}")


def test_no_sidecar(tmp_path):
    assert refusal(tmp_path) == f"{SIDECAR}: cannot be read (No such file or directory)"


def test_a_file_that_is_missing(folder):
    (folder / "model.onnx").unlink()
    told = "is missing; copy the whole folder, or export it again"
    assert refusal(folder) == f"model.onnx: {told}"


def test_a_file_that_was_changed(folder):
    (folder / "model.onnx").write_bytes(b"another")
    told = f"is not the file that {SIDECAR} was written for; export it again"
    assert refusal(folder) == f"model.onnx: {told}"


def test_no_file_outside_the_folder_is_opened(folder):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "model.onnx").write_bytes(b"a model")
    write(inner, files={"../model.onnx": file_hash(folder / "model.onnx")})
    assert "is missing" in refusal(inner)
