"""The service as two replicas of Ray Serve: answers and refusals are those of `predict`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from socket import socket

import httpx
import pytest
from pydantic import ValidationError

import vovnet
from vovnet.errors import VovnetError
from vovnet.serve.on_ray import Options, app

pytest.importorskip("ray.serve")

SCRIPT = """
import sys
import ray
from ray import serve
from vovnet.serve.on_ray import Options, app

ray.init(
    "local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8
)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(app(Options(replicas=2, max_pixels=1_000_000)), name="vovnet")
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture
def url() -> Iterator[str]:
    """The address of two replicas."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = {"PYTHONPATH": str(Path(vovnet.__file__).parents[1])}
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    # Where much else runs, Ray's processes would wait behind it and be taken for dead.
    quiet |= {"RAY_worker_niceness": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | paths | quiet
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(port)],
        env=environment,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    with process:
        try:
            assert process.stdout is not None
            assert any(line == "ready\n" for line in process.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_replicas_answer_as_predict_does(url, detector, files, metric):
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:

        def ask(name: str) -> dict:
            return client.post("/v1/predict", files={"image": (name, files[name])}).json()

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, [*files] * 4))
        for name, answer in zip([*files] * 4, answers, strict=True):
            [row] = answer["results"]
            assert row["detections"] == detector.detect(files[name]).to_dict(), name
        refused = client.post("/v1/predict", content=b"no picture")
        assert refused.status_code == 422
        assert "not a readable picture" in refused.json()["error"]
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/v1/model").json()["limits"]["max_pixels"] == 1_000_000
        ask("cat.jpg")  # so that their sum is odd: two counts are never alike
        counts, until = set(), time.monotonic() + 60
        while len(counts) < 2 and time.monotonic() < until:
            counts.add(metric(client, "vovnet_images_total"))
        assert sum(counts) == 4 * len(files) + 1


def test_options_that_are_none():
    with pytest.raises(ValidationError, match="replica"):
        Options(replica=2)
    with pytest.raises(VovnetError, match="--batch 0: must be at least 1"):
        app(Options(batch=0))
    assert Options(replicas="2", wait_ms="1.5").limits().wait_ms == 1.5
