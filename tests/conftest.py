"""What several tests share: small VOC data sets of coloured rectangles, and random weights."""

import inspect
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vovnet.cli import main
from vovnet.detections import Detections
from vovnet.device import keep_freed_memory
from vovnet.lab import roofline
from vovnet.models import create_detector
from vovnet.models.weights import save_detector

keep_freed_memory()  # a suite that takes and gives back as much all the time

CHROMIUM = shutil.which("chromium")
COLOURS = {"blue": (30, 60, 220), "red": (220, 40, 40)}
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_voc(root: Path, *, train: int = 8, val: int = 4, side: int = 64, empty: bool = False):
    """Pictures of noise, each with one blue and one red rectangle, unless `empty`; returns `root`.

    Lists "train" and "val"; classes are the colours' names.
    """
    rng = np.random.default_rng(0)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        stems = [f"{split}{i:02d}" for i in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{s}\n" for s in stems))
        for stem in stems:
            pixels = rng.integers(90, 140, (side, side, 3), dtype=np.uint8)
            objects = ""
            for half, (name, colour) in enumerate(COLOURS.items()):
                width, height = rng.integers(side // 4, side // 2, 2)
                x = int(rng.integers(side - width))
                y = half * side // 2 + int(rng.integers(side // 2 - height + 1))
                pixels[y : y + height, x : x + width] = colour
                objects += OBJECT.format(name, x + 1, y + 1, x + width, y + height)
            if empty:
                pixels[:], objects = 114, ""
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{stem}.png")
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><size><width>{side}</width><height>{side}</height></size>"
                f"{objects}</annotation>"
            )
    return root


@pytest.fixture(autouse=True)
def small_roofs(request, monkeypatch) -> None:
    """Every bench measures the machine's roofs many times; in tests with little work."""
    if not request.path.match("lab/test_roofline.py"):
        monkeypatch.setitem(roofline._SIDES, "cpu", 256)
        monkeypatch.setattr(roofline, "_COPIED_BYTES", 1 << 22)


@pytest.fixture(scope="session")
def make_voc() -> Callable[..., Path]:
    return write_voc


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    """A data set that tests may read but not change: 8 images to train, 4 to validate."""
    return write_voc(tmp_path_factory.mktemp("data") / "voc")


@pytest.fixture(scope="session")
def nano(tmp_path_factory) -> Path:
    """Random weights of vovdet_nano for the classes of `voc`, at 64 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else which tests ran before decides what it finds
        detector = create_detector("vovdet_nano", tuple(COLOURS))
    detector.input_spec = detector.input_spec.with_side(64, "vovdet_nano")
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_detector(path, detector)
    return path


@torch.no_grad()
def _randomise_norms(network: nn.Module, seed: int = 0) -> None:
    """As after training: fresh statistics of mean 0 and variance 1 would hide their misuse."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)


@pytest.fixture(scope="session")
def randomise_norms() -> Callable[..., None]:
    """Fills a network's batch norms in place: `randomise_norms(network, seed=0)`."""
    return _randomise_norms


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """A person and a cat, in which the shipped weights find something."""
    data = pytest.importorskip("skimage.data")
    return [Image.fromarray(picture()) for picture in (data.astronaut, data.chelsea)]


def _compare_found(found: Detections, twin: Detections) -> None:
    """In any order, for scores nearly alike may change places: as many, and for each of either one
    of the other's that has its label, its score to 0.001 and its corners to half a pixel."""
    assert len(found) == len(twin)
    apart = np.abs(found.boxes[:, None] - twin.boxes[None]).max(2, initial=0.0)
    alike = found.labels[:, None] == twin.labels[None]
    alike &= np.abs(found.scores[:, None] - twin.scores[None]) <= 1e-3
    alike &= apart <= 0.5
    assert alike.any(1).all(), f"of the first alone: {np.flatnonzero(~alike.any(1)).tolist()}"
    assert alike.any(0).all(), f"of the second alone: {np.flatnonzero(~alike.any(0)).tolist()}"


@pytest.fixture(scope="session")
def compare_found() -> Callable[[Detections, Detections], None]:
    """Asserts that two devices found the same in an image: `compare_found(one, other)`."""
    return _compare_found


class Outcome(NamedTuple):
    """What one call of the command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., Outcome]:
    """Calls the command line in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run) -> Callable[..., str]:
    """Calls the command line and returns the one line on stderr that refuses the input."""

    def call(*arguments: object) -> str:
        outcome = run(*arguments)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        [line] = outcome.err.splitlines()
        assert line.startswith("vovnet: ")
        assert "Traceback" not in line
        return line

    return call


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def in_ranks(tmp_path_factory) -> Iterator[Callable[..., list]]:
    """Runs a test file's function in real processes, with the environment that torchrun gives.

    `in_ranks(worker, *arguments, count=2)` returns what each returned, by rank; arguments and
    results go through JSON. The processes are forked from one that has imported torch.
    """
    script = Path(__file__).with_name("fork_ranks.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, script], env=environment, start_new_session=True, **pipes
    )

    def call(worker: Callable, *arguments: object, count: int = 2) -> list:
        folder = tmp_path_factory.mktemp("ranks")
        ours = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        ours |= {"WORLD_SIZE": str(count)}
        ranks = [ours | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(count)]
        file = inspect.getsourcefile(worker)
        order = [file, worker.__name__, arguments, ranks, str(folder)]
        print(json.dumps(order), file=server.stdin, flush=True)
        answered, _, _ = select.select([server.stdout], [], [], 200)
        codes = json.loads(server.stdout.readline()) if answered else ["no answer"]
        said = "".join(path.read_text() for path in sorted(folder.glob("*.err")))
        assert codes == [0] * count, f"{codes}: {said}"
        return [json.loads((folder / f"{i}.json").read_text()) for i in range(count)]

    with server:
        yield call
        server.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


class Browser:
    """Headless Chromium over its debugging pipe: messages are JSON that end in a zero byte."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self.last = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.writing.write(json.dumps(message).encode() + b"\0")
        self.writing.flush()
        while (answer := self._next()).get("id") != self.last:
            self.events.append(answer)
        return answer["result"]

    def wait_for(self, method: str) -> None:
        while all(event["method"] != method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self.reading.read(1)) != b"\0":
            assert byte, "the browser is gone"
            data += byte
        return json.loads(data)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Network", "Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        self.evaluate("1")  # what was still on its way has arrived

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]


@contextmanager
def _chromium(profile: Path, *more: str) -> Iterator[Browser]:
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    flags = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run"
    flags = " ".join((flags, "--disable-background-networking --disable-component-update", *more))
    line = f'exec "$0" {flags} --user-data-dir="$1" 3<&{command_read} 4>&{answer_write}'
    with subprocess.Popen(
        ["bash", "-c", line, CHROMIUM, profile],
        pass_fds=(command_read, answer_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(command_read)
        os.close(answer_write)
        chromium = Browser(answer_read, command_write)
        try:
            yield chromium
            chromium.session = None
            chromium.call("Browser.close")
        finally:
            process.kill()
            chromium.reading.close()
            chromium.writing.close()


@pytest.fixture
def browser(tmp_path) -> Callable[..., Any]:
    """A context with a headless browser: `with browser(*flags) as chromium`."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    return lambda *flags: _chromium(tmp_path / "profile", *flags)
