"""The image and the manifest fit the service: its options, routes, user and time limits."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vovnet.cli import _options_of
from vovnet.serve import Limits

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


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
