"""What a plain `pip install vovnet` can do: everything but training and measuring, without torch.

Each test runs in an interpreter that finds the packages of a light installation only.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vovnet
from vovnet.load import load_detector

SOURCE = Path(vovnet.__file__).parents[1]
# What pyproject.toml's dependencies bring; of all else that is installed here nothing is found.
LIGHT = (
    *("numpy", "pillow", "onnxruntime", "hotcoco", "cyclopts", "pyyaml", "rich"),
    *("protobuf", "flatbuffers", "packaging", "attrs", "docstring-parser", "rich-rst"),
    *("pygments", "markdown-it-py", "mdurl", "typing-extensions"),
)
_BARE = """
import sys
from importlib.machinery import PathFinder

class Light(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [Light if finder is PathFinder else finder for finder in sys.meta_path]
"""


def _absent() -> set[str]:
    """The import names of packages that a light installation does not bring."""
    absent: set[str] = set()
    for package in distributions():
        name = package.metadata["Name"].lower().replace("_", "-")
        if name not in {*LIGHT, "vovnet"}:
            absent |= {Path(f.parts[0]).stem for f in package.files or () if f.suffix == ".py"}
    return absent - {"..", "typing_extensions"}


@pytest.fixture(scope="module")
def light() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python code in a light interpreter, with `arguments` as sys.argv[1:]."""
    absent = _absent()
    assert {"torch", "torchvision", "safetensors", "filelock", "jinja2", "skimage"} <= absent
    assert not {"numpy", "PIL", "onnxruntime", "cyclopts", "yaml"} & absent

    def call(code: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        code = f"absent = {absent!r}\n{_BARE}\nsys.path.insert(0, {str(SOURCE)!r})\n{code}"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd)

    return call


@pytest.fixture(scope="module")
def cli(light) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `vovnet ARGUMENTS` in a light interpreter."""
    code = "from vovnet.__main__ import main\nsys.exit(main())"
    return lambda *arguments, cwd: light(code, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def cat(photographs, tmp_path_factory) -> Path:
    """A VOC set of one photograph of a cat."""
    root = tmp_path_factory.mktemp("cat")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    photographs[1].save(root / "JPEGImages" / "cat.png")
    width, height = photographs[1].size
    (root / "ImageSets/Main/val.txt").write_text("cat\n")
    (root / "Annotations/cat.xml").write_text(
        f"<annotation><size><width>{width}</width><height>{height}</height></size><object>"
        "<name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>434</xmax><ymax>299</ymax>"
        "</bndbox></object></annotation>"
    )
    return root


def test_predict(cli, cat, tmp_path):
    outcome = cli("predict", cat / "JPEGImages", "--json", cwd=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome.stderr
    [row] = json.loads(outcome.stdout)
    assert [found["label"] for found in row["detections"]] == ["cat"]
    with Image.open(tmp_path / row["annotated"]) as drawn:
        assert drawn.size == (451, 300)


def test_val(cli, cat, tmp_path):
    outcome = cli("val", cat, "--json", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    figures = json.loads(outcome.stdout)
    assert figures["runtime"] == "onnxruntime"
    assert figures["map_50"] == pytest.approx(1)


def test_load_detector(light, photographs, tmp_path):
    photographs[0].save(tmp_path / "one.png")
    code = (
        "import json, vovnet\n"
        "found = vovnet.load_detector('vovdet_nano.voc').detect(sys.argv[1])\n"
        "heavy = {'torch', 'torchvision', 'hotcoco', 'skimage', 'cyclopts'} & set(sys.modules)\n"
        "print(json.dumps([found.to_dict(), sorted(heavy)]))\n"
    )
    outcome = light(code, "one.png", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    found, heavy = json.loads(outcome.stdout)
    here = load_detector("vovdet_nano.voc", runtime="onnxruntime").detect(photographs[0])
    assert [row["label"] for row in found] == [here.names[label] for label in here.labels]
    boxes = [list(row["box"].values()) for row in found]
    np.testing.assert_allclose(boxes, here.boxes, atol=1e-3)
    assert heavy == []


def test_predict_imports_no_more_than_it_needs(light, cat, tmp_path):
    """What takes time to import is left until something is drawn, or measured."""
    code = (
        "from vovnet.cli import main\n"
        "assert main(['predict', sys.argv[1], '--no-save']) == 0\n"
        "late = ('hotcoco', 'rich', 'PIL.ImageDraw', 'PIL.TiffImagePlugin', 'vovnet.data.open')\n"
        "print(sorted(set(late) & set(sys.modules)))\n"
    )
    outcome = light(code, cat / "JPEGImages" / "cat.png", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1] == "[]"


def test_env_and_doctor(cli, cat, tmp_path):
    facts = json.loads(cli("env", "--json", cwd=tmp_path).stdout)
    assert facts["versions"]["torch"] is facts["cpu"]["torch_threads"] is None
    assert facts["versions"]["numpy"] == np.__version__
    outcome = cli("doctor", cat, "--fix", "copy", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "copy").is_dir()


TORCH = "torch is not installed; install it with: pip install 'vovnet[train]'"


@pytest.mark.parametrize(
    "arguments",
    [
        ["models"],
        ["count", "vovnet39"],
        ["bench", "vovdet_nano"],
        ["train", "--data", "voc"],
        ["convert", "a.pth", "b.safetensors"],
        ["pick"],
        ["export", "--format", "onnx"],
        ["study", "cifar", "--config", "recipe.yaml"],
        ["doctor", "voc", "--model", "vovdet_nano"],
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_so(cli, arguments, tmp_path):
    outcome = cli(*arguments, cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == f"vovnet: {TORCH}\n"
    assert list(tmp_path.iterdir()) == []


def test_serve_says_what_brings_it(cli, tmp_path):
    outcome = cli("serve", cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == (
        "vovnet: fastapi is not installed; install it with: pip install 'vovnet[serve]'\n"
    )


def test_a_video_says_what_it_needs(cli, tmp_path):
    outcome = cli("predict", "clip.mp4", "--no-save", cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == (
        "vovnet: av is not installed, and a video needs it; "
        "install it with: pip install 'vovnet[video]'\n"
    )


def test_python_says_so_too(light, tmp_path):
    outcome = light("from vovnet import create_model", cwd=tmp_path)
    assert outcome.stderr.splitlines()[-1] == f"vovnet.errors.MissingExtraError: {TORCH}"


def test_what_no_onnx_file_does_needs_torch(light, tmp_path):
    """All in one interpreter, for each start takes a second."""
    asked = {
        "maskrcnn-vovnet19_slim.nuclei": {"weights": "maskrcnn-vovnet19_slim.nuclei"},
        "--device cuda": {"device": "cuda"},
        "--imgsz 256": {"imgsz": 256},
        "--runtime eager": {"runtime": "eager"},
        "--runtime onnxruntime in int8": {"runtime": "onnxruntime", "precision": "int8"},
    }
    code = (
        "import json, vovnet\n"
        "for options in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        vovnet.load_detector(**{'weights': 'vovdet_nano.voc'} | options)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error, sep=': ')\n"
        "print(vovnet.load_detector('vovdet_nano.voc', imgsz=int(sys.argv[2])).runtime)\n"
    )
    side = load_detector("vovdet_nano.voc", runtime="onnxruntime").input_spec.size[0]
    outcome = light(code, json.dumps(list(asked.values())), side, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    *refusals, own_side = outcome.stdout.splitlines()
    wanted = "torch is not installed, and {} needs it; install it with: pip install 'vovnet[train]'"
    assert refusals == [f"MissingExtraError: {wanted.format(what)}" for what in asked]
    assert own_side == "onnxruntime"


@pytest.mark.slow
def test_a_page_says_which_extra_it_needs(cli, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.csv").write_text("epoch,lr\n1,0.1\n")
    for arguments in (("report", "run"), ("val", "nowhere", "--html", "a.html")):
        outcome = cli(*arguments, cwd=tmp_path)
        assert (outcome.returncode, outcome.stdout) == (2, "")
        assert outcome.stderr == (
            "vovnet: jinja2 is not installed, and the page needs it; install it with: "
            "pip install 'vovnet[train]'\n"
        )
