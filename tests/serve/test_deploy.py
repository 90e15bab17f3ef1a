"""The image and the manifest fit the service: its options, routes, user and time limits."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from vovnet.cli import _options_of
from vovnet.serve import Limits

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_OFFLINE = re.compile("new connection|name resolution|network is unreachable|timed out", re.I)


@pytest.fixture(scope="module")
def pod():
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


def test_the_manifest_asks_what_there_is(pod, server):
    [container] = pod["containers"]
    options = [word for word in container["args"] if word.startswith("--")]
    assert {option[2:] for option in options} <= _options_of("serve")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server.get(container[probe]["httpGet"]["path"]).status_code == 200


def test_it_has_the_time_to_end_in_order(pod):
    [container] = pod["containers"]
    arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    seconds = float(arguments.get("--timeout", Limits().timeout))
    stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > stop + 2 * seconds + 6


def test_it_may_do_nothing_but_serve(pod):
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    image = (DEPLOY / "Dockerfile").read_text()
    [user] = re.findall(r"^USER (\d+)$", image, re.M)
    assert pod["securityContext"]["runAsUser"] == int(user) > 0
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_image_starts_what_there_is(server):
    image = (DEPLOY / "Dockerfile").read_text()
    words = re.search(r"^ENTRYPOINT \[(.*)\]$", image, re.M)[1].replace('"', "").split(", ")
    assert words[:2] == ["vovnet", "serve"]
    assert {word[2:] for word in words if word.startswith("--")} <= _options_of("serve")
    path = re.search(r"127\.0\.0\.1:8000(/\w+)", image)[1]
    assert server.get(path).status_code == 200


def test_it_serves_without_torch():
    code = "import sys, vovnet.serve.app; print('torch' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.stdout == "False\n", outcome.stderr


def stages() -> list[list[str]]:
    """The instructions of each stage of the image, those that go on over several lines in one."""
    image = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [part.splitlines() for part in re.split(r"^FROM ", image, flags=re.M)[1:]]


def pip_lines(instructions: list[str]) -> list[str]:
    """What pip is told, one after the other."""
    runs = [line for line in instructions if line.startswith("RUN ")]
    return [c for line in runs for c in re.findall(r"\bpip (.+?)(?= && |$)", line)]


@pytest.fixture
def bare() -> dict[str, str]:
    """The environment without our source, and what takes time alone."""
    rest = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return rest | {"PIP_NO_COMPILE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_pip_is_told_brings_a_service_that_answers(tmp_path, bare, files):
    """The last stage in a fresh environment, its entry point on a port of its own."""
    build, last = stages()
    [lists] = [line for line in build if line.startswith("COPY pyproject")]
    for name in lists.split()[1:-1]:
        shutil.copy(DEPLOY.parent / name, tmp_path)
    shutil.copytree(DEPLOY.parent / "src", tmp_path / "src")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    for python, stage in ((sys.executable, build), (programs / "python", last)):
        for line in pip_lines(stage):
            words = shlex.split(line.replace("/wheels", str(tmp_path / "wheels")))
            command = [python, "-m", "pip", *words]
            done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
            if done.returncode and _OFFLINE.search(done.stderr):
                pytest.skip("the package index cannot be reached")
            assert done.returncode == 0, done.stderr
    [entry] = [line for line in last if line.startswith("ENTRYPOINT ")]
    words = yaml.safe_load(entry.removeprefix("ENTRYPOINT "))
    assert words == ["vovnet", "serve", "--host", "0.0.0.0", "--port", "8000"]
    command = [programs / "vovnet", "serve", "--host", "127.0.0.1", "--port", "0"]
    how = {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL), "env": bare}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, **how
    ) as process:
        try:
            url = process.stderr.readline().split()[1]
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                assert client.get("/healthz").json() == {"status": "ok"}
                answer = client.post("/v1/predict", content=files["cat.jpg"]).json()
            assert [found["label"] for found in answer["results"][0]["detections"]] == ["cat"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
