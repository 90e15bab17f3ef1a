"""Networks that are no files: a function of a Python file, torchvision's checkpoints."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

from vovnet.errors import VovnetError
from vovnet.lab.target import open_target

TEXT = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

def number():
    return 3

def broken():
    raise KeyError("no such layer")

def example():
    return torch.zeros(2, 3, 48, 48)
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def test_a_function_makes_the_network(file):
    target = open_target(f"{file}:small")
    assert (target.imgsz, target.network.training) == (48, False)
    assert target.network(torch.zeros(1, 3, 48, 48)).shape == (1, 4, 46, 46)
    assert open_target(f"{file}:small", 32).imgsz == 32
    file.write_text(TEXT.partition("def example")[0])
    assert open_target(f"{file}:small").imgsz == 224


def test_a_function_may_import_what_lies_beside_its_file(file):
    (file.parent / "beside.py").write_text("from torch import nn\nNet = nn.Identity\n")
    late = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Plan:
    width: int = 4

def make():
    from beside import Net
    return Net(Plan().width)
"""
    file.write_text(late)
    assert isinstance(open_target(f"{file}:make").network, torch.nn.Identity)
    assert not [name for name in sys.modules if name.startswith("vovnet.lab.factory.")]


def test_it_is_counted_and_measured(run, file):
    [row] = json.loads(run("count", f"{file}:small", "--json").out)
    assert (row["params"], row["macs"]) == (3 * 4 * 9 + 4 + 8, 46 * 46 * 4 * 27)
    quick = ("--seconds", 0.01, "--repeats", 1, "--no-memory", "--threads", 1, "--json")
    [row] = json.loads(run("bench", f"{file}:small", *quick).out)
    assert row["error"] is None
    assert row["correct"] is True


@pytest.mark.parametrize(
    ("function", "text", "told"),
    [
        ("smal", TEXT, "Did you mean small?"),
        ("number", TEXT, "returns a int; it must return a torch.nn.Module"),
        ("broken", TEXT, "failed: KeyError: 'no such layer'"),
        ("small", "import nowhere\n", "cannot be run: ModuleNotFoundError"),
        ("small", "raise SystemExit(0)\n", "cannot be run: SystemExit"),
        ("small", "def f(:\n", "cannot be run: SyntaxError"),
        ("small", TEXT.replace("48, 48", "48"), "must return one tensor N×3×S×S"),
        ("small", TEXT.replace("48, 48", "48, 32"), "must be square"),
    ],
)
def test_what_makes_none(refused, file, function, text, told):
    file.write_text(text)
    line = refused("count", f"{file}:{function}")
    assert str(file) in line
    assert told in line


def test_a_file_that_is_not_there(refused, tmp_path):
    assert "no such file; check the path" in refused("count", tmp_path / "none.py:small")


def test_torchvisions_checkpoints(tmp_path):
    path, name = tmp_path / "net.pth", "torchvision:squeezenet1_1"
    model = models.squeezenet1_1(num_classes=2)
    torch.save({"model": model.state_dict(), "epoch": 3}, path)
    target = open_target(f"{name}@{path}", num_classes=2)
    assert target.name == f"{name}@{path}"
    for key, value in target.network.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    with pytest.raises(VovnetError, match=r"does not fit .*size mismatch"):
        open_target(f"{name}@{path}")
    torch.save(model, path)  # a whole module could run code
    with pytest.raises(VovnetError, match="does not fit"):
        open_target(f"{name}@{path}", num_classes=2)
    with pytest.raises(VovnetError, match="cannot be read"):
        open_target(f"{name}@{tmp_path / 'none.pth'}")
