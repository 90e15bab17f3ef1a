"""What `pip install vovnet` brings: a wheel in a fresh environment, away from its source."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_MB = 320  # 280 when this was written: 104 are ours, 76 ONNX Runtime's, 57 NumPy's
_OFFLINE = re.compile("new connection|name resolution|network is unreachable|timed out", re.I)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def pip(python: Path | str, *arguments: object) -> None:
    """Run pip; skips the test where the package index cannot be reached."""
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode and _OFFLINE.search(done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A fresh environment with the wheel and what it depends on, no extra."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT)
    [wheel] = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip(scripts / "python", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    return scripts


def run(command: list[object], folder: Path) -> str:
    """The output of a command that must succeed, run where no source of ours is."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=bare)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_finds_objects_without_torch(installed, photographs, tmp_path):
    photographs[1].save(tmp_path / "cat.png")
    [row] = json.loads(run([installed / "vovnet", "predict", "cat.png", "--json"], tmp_path))
    assert [found["label"] for found in row["detections"]] == ["cat"]
    assert (tmp_path / row["annotated"]).is_file()
    facts = json.loads(run([installed / "vovnet", "env", "--json"], tmp_path))
    assert facts["versions"]["torch"] is None
    assert "torch" in facts["extras_lack"]["train"]


def test_it_is_small(installed, tmp_path, capsys):
    code = (
        "import json, os\n"
        "from importlib.metadata import distributions\n"
        "sizes = {d.metadata['Name'].lower(): sum(\n"
        "    os.path.getsize(f.locate()) for f in d.files or () if os.path.exists(f.locate())\n"
        ") for d in distributions()}\n"
        "print(json.dumps(sizes))\n"
    )
    sizes = json.loads(run([installed / "python", "-c", code], tmp_path))
    absent = {"torch", "torchvision", "safetensors", "filelock", "jinja2", "scikit-image", "scipy"}
    assert not absent & sizes.keys()
    ours = {name: size / 1e6 for name, size in sizes.items() if name not in ("pip", "setuptools")}
    with capsys.disabled():
        largest = sorted(ours.items(), key=lambda item: -item[1])[:6]
        told = ", ".join(f"{name} {size:.0f}" for name, size in largest)
        print(f"\ninstalled: {sum(ours.values()):.0f} MB ({told})")
    assert sum(ours.values()) < MOST_MB
