"""A real server on a port of its own, with the shipped nano in ONNX Runtime."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from vovnet.detect.file_detector import FileDetector
from vovnet.detect.options import Options
from vovnet.load import load_detector
from vovnet.serve import Limits
from vovnet.serve.app import create_app
from vovnet.serve.run import bind, make_server


class Held:
    """A real detector's `find`, which computes only while `go` is set; remembers the batches."""

    def __init__(self, detector: FileDetector) -> None:
        self.go, self.entered = threading.Event(), threading.Semaphore(0)
        self.batches: list[int] = []
        self.detector, self._find = copy(detector), detector.find
        self.detector.find = self.find

    def find(self, pixels: np.ndarray, how: Options) -> Sequence[Any]:
        self.batches.append(len(pixels))
        self.entered.release()
        assert self.go.wait(20)
        return self._find(pixels, how)


@contextmanager
def _served(detector: FileDetector, limits: Limits, **options: Any) -> Iterator[httpx.Client]:
    app = create_app(detector, limits, **options)
    with bind("127.0.0.1", 0) as listener:
        server = make_server(app, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while thread.is_alive() and not server.started:
            time.sleep(0.005)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def detector() -> FileDetector:
    return load_detector("vovdet_nano.voc", runtime="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def server(detector) -> Iterator[httpx.Client]:
    """A client of a server with its default limits, but for small ones of size."""
    with _served(detector, Limits(max_bytes=2_000_000, max_pixels=1_000_000)) as client:
        yield client


@pytest.fixture
def serve(detector) -> Iterator[Callable[..., httpx.Client]]:
    """Starts a server of its own: `serve(limits, detector=..., keys=..., origins=...)`."""
    with ExitStack() as stack:

        def start(limits: Limits, **options: Any) -> httpx.Client:
            return stack.enter_context(
                _served(options.pop("detector", detector), limits, **options)
            )

        yield start


@pytest.fixture
def held(detector) -> Iterator[Held]:
    """The detector, held until `go.set()`."""
    one = Held(detector)
    yield one
    one.go.set()


@contextmanager
def _running(*options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    command = [sys.executable, "-m", "vovnet", "serve", "--port", "0", "--runtime", "onnxruntime"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
    pipes["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([*command, "--json", *options], **pipes) as process:
        try:
            facts = json.loads(process.stdout.readline())
            url = facts.pop("url")
            assert url.startswith("http://127.0.0.1:")
            assert facts == {"model": "vovdet_nano", "runtime": "onnxruntime", "precision": "fp32"}
            yield process, url
        finally:
            process.kill()


@pytest.fixture(scope="session")
def running() -> Callable[..., Any]:
    """`vovnet serve` as a process and its address: `with running(*options) as (process, url)`."""
    return _running


def _file(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.fixture(scope="session")
def files(photographs) -> dict[str, bytes]:
    """Pictures as files: a person, a cat, the cat turned by EXIF, and one that is decoded small."""
    person, cat = photographs
    exif = Image.Exif()
    exif[0x0112] = 6
    large = cat.resize((902, 600))
    return {
        "person.png": _file(person, "PNG"),
        "cat.jpg": _file(cat, quality=90),
        "turned.jpg": _file(cat.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=90),
        "large.jpg": _file(large, quality=90),
    }


@pytest.fixture(scope="session")
def metric() -> Callable[[httpx.Client, str], float]:
    """The value of a metric without labels: `metric(client, name)`."""

    def value(client: httpx.Client, name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    return value


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits for what comes soon: `wait_until(condition)`."""

    def wait(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)

    return wait
