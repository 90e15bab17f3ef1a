"""The shipped nano in ONNX Runtime, and videos and streams made of a photograph."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

import vovnet
from vovnet.load import load_detector


@pytest.fixture(scope="session")
def shipped() -> Any:
    """The detector that predict takes if nothing else is said."""
    return load_detector("vovdet_nano.voc", runtime="onnxruntime")


@pytest.fixture(scope="session")
def pan(photographs) -> list[Image.Image]:
    """A window of 320×240 that moves over the photograph of a cat, eleven frames."""
    cat = photographs[1]
    return [cat.crop((x, 30, x + 320, 270)) for x in range(0, 111, 10)][:11]


def _write_video(path: Path, frames: list[Image.Image], rate: Fraction, turn: int = 0) -> Path:
    """An MP4 of the frames; `turn` is what a phone notes that was held upright."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode(None))
    if turn:
        _turn(path)
    return path


def _turn(path: Path) -> None:
    """Write the matrix of a quarter turn clockwise into the track's header."""
    data = path.read_bytes()
    one = (1 << 16).to_bytes(4, "big")
    none, minus = bytes(4), (-(1 << 16) & 0xFFFFFFFF).to_bytes(4, "big")
    last = (1 << 30).to_bytes(4, "big")
    plain = one + none * 3 + one + none * 3 + last
    turned = none + one + none + minus + none * 4 + last
    at = data.index(plain, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(plain) :])


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Makes a video: `write_video(path, frames, rate, turn=0)`."""
    return _write_video


@pytest.fixture
def video(tmp_path, pan) -> Path:
    """The pan as a video of 12.5 frames a second."""
    return _write_video(tmp_path / "pan.mp4", pan, Fraction(25, 2))


@pytest.fixture(scope="session")
def jpegs(pan) -> list[bytes]:
    """The pan as JPEG files."""
    files = []
    for image in pan:
        data = BytesIO()
        image.save(data, "JPEG", quality=92)
        files.append(data.getvalue())
    return files


@pytest.fixture
def serve() -> Iterator[Callable[..., ThreadingHTTPServer]]:
    """Serves on loopback: `serve(answer, port=0)`; `answer` is called with the request handler."""
    servers = []

    def start(answer: Callable[[Any], None], port: int = 0) -> ThreadingHTTPServer:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *what: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts `vovnet predict ARGUMENTS` in a folder: `start(cwd, *arguments, before="", **pipes)`,
    where `before` is code that changes what tests cannot wait for."""
    code = "import sys; from vovnet.__main__ import main; sys.exit(main())"
    paths = {"PYTHONPATH": str(Path(vovnet.__file__).parents[1])}
    environment = os.environ | paths | {"PYTHONFAULTHANDLER": "1"}
    started: list[subprocess.Popen] = []

    # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
    how = {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL), "text": True}

    def call(cwd: Path, *arguments: object, before: str = "", **pipes: Any) -> subprocess.Popen:
        command = [sys.executable, "-c", before + code, "predict", *map(str, arguments)]
        started.append(subprocess.Popen(command, cwd=cwd, env=environment, **how, **pipes))
        return started[-1]

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        with process:
            """Closes its pipes."""
