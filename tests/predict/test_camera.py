"""A camera for a minute: pictures that come faster than they are seen, and a power cut."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import cycle, pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

PAUSE = 0.01  # seconds between pictures: twice what a core sees, or more


class Camera:
    """Sends pictures without end to whoever asks, until its power is cut; counts them."""

    def __init__(self, serve: Callable[..., Any], jpegs: list[bytes]) -> None:
        self._serve, self._jpegs = serve, jpegs
        self.sent = self.port = 0
        self.switch_on()

    def switch_on(self) -> None:
        self._cut = Event()
        self._server = self._serve(self._answer, self.port)
        self.port = self._server.server_address[1]

    def cut(self) -> None:
        self._cut.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: Any) -> None:
        cut = self._cut
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for data in cycle(self._jpegs):
            if cut.is_set():
                return
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                handler.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return
            self.sent += 1
            time.sleep(PAUSE)


def resident(process: subprocess.Popen) -> float:
    """Megabytes of memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1e3


@pytest.mark.slow
def test_a_camera_for_a_minute(serve, start, jpegs, tmp_path):
    """Its newest picture is seen, before and after a power cut; what is dropped is counted, and
    nothing of it is kept."""
    pytest.importorskip("av")
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell a process's memory there")
    camera, rows = Camera(serve, jpegs), tmp_path / "rows.jsonl"
    address = f"http://127.0.0.1:{camera.port}/yard.mjpg"
    job = (address, "--no-save", "--jsonl", rows, "--runtime", "onnxruntime")
    process = start(tmp_path, *job, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    memory = []
    for pause in (15, 15):
        time.sleep(pause)
        memory.append(resident(process))
    camera.cut()
    time.sleep(5)
    camera.switch_on()
    for pause in (15, 15):
        time.sleep(pause)
        memory.append(resident(process))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "yard.mjpg: lost (" in said
    read, dropped = map(int, re.search(r"yard.mjpg: (\d+) frames, (\d+) dropped", said).groups())
    seen = [json.loads(line) for line in rows.read_text().splitlines()]
    assert read - dropped - len(seen) in (0, 1, 2)  # the one that waits, the one that is looked at
    assert dropped > 100
    assert camera.sent - 100 < read <= camera.sent  # but for what was on its way
    numbers = [row["frame"] for row in seen]
    assert numbers == sorted(set(numbers))
    pauses = [later["time"] - one["time"] for one, later in pairwise(seen)]
    assert sum(pause > 4 for pause in pauses) == 1  # the cut
    assert max(memory) - memory[0] < 15, memory
