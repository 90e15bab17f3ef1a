"""What the service says of itself holds: its OpenAPI description, tried out by schemathesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vovnet.serve import Limits
from vovnet.serve.keys import read_keys

HERE = Path(__file__).parent
KEY = "0123456789abcdef0123"


@pytest.mark.slow
def test_every_answer_is_as_it_is_described(serve, tmp_path):
    """Statuses, types of content, schemas, methods; and what does not fit a schema is refused."""
    (tmp_path / "keys").write_text(KEY)
    limits = Limits(max_bytes=2_000_000, max_pixels=1_000_000)
    client = serve(limits, keys=read_keys(tmp_path / "keys"))
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        HERE / "schemathesis.toml",
    ]
    command += [
        "run",
        f"{client.base_url}/openapi.json",
        "--header",
        f"Authorization: Bearer {KEY}",
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_pictures.py")}
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert " 11 selected / 11 total" in told.stdout
    counted = client.get("/metrics", headers={"X-API-Key": KEY}).text
    assert 'vovnet_refused_total{reason="unauthorized"}' in counted
    assert 'reason="bug"' not in counted


def test_a_key_is_described_where_one_is_needed(serve, server):
    locked = serve(Limits(), keys=(b"0" * 32,)).get("/openapi.json").json()
    for path, operations in locked["paths"].items():
        for operation in operations.values():
            needs = path in ("/v1/predict", "/v1/model", "/metrics") or "{name}" in path
            assert ("401" in operation["responses"]) == ("security" in operation) == needs, path
    assert '"security' not in server.get("/openapi.json").text


def test_the_examples_are_answered(server, detector):
    """The bodies that the description shows can be sent as they stand."""
    paths = server.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{name}/infer"]["post"]
    assert infer["parameters"][0]["schema"]["enum"] == [detector.name]
    example = infer["requestBody"]["content"]["application/json"]["example"]
    answer = server.post(f"/v2/models/{detector.name}/infer", json=example)
    assert answer.status_code == 200, answer.text
