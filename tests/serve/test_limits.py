"""What is too much is refused at once, with the status that tells clients what to do."""

import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy

import pytest

from vovnet.errors import VovnetError
from vovnet.serve import Limits, batching
from vovnet.serve.keys import read_keys


def test_a_full_queue_is_told_and_empties(serve, held, files, metric, wait_until):
    client = serve(Limits(queue=3), detector=held.detector)
    cat = files["cat.jpg"]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.post, "/v1/predict", content=cat) for _ in range(3)]
        wait_until(lambda: metric(client, "vovnet_accepted") == 3)
        full = client.post("/v1/predict", content=cat)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert full.json() == {"error": "3 pictures wait already; try again in 1 s"}
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        held.go.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
    assert client.post("/v1/predict", content=cat).status_code == 200
    assert 'vovnet_refused_total{reason="full"} 1.0' in client.get("/metrics").text
    assert metric(client, "vovnet_accepted") == 0


def test_more_pictures_than_ever_fit(serve, files):
    client = serve(Limits(queue=2))
    sent = [("image", ("cat.jpg", files["cat.jpg"]))] * 3
    answer = client.post("/v1/predict", files=sent)
    assert answer.status_code == 413
    assert "more than 2 fields" in answer.json()["error"]


def test_time_runs_out(serve, held, files, metric, wait_until):
    """The client is told, its place is free again, and what it waited for is not computed."""
    client = serve(Limits(timeout=1.5), detector=held.detector)
    with ThreadPoolExecutor(2) as pool:
        late = [pool.submit(client.post, "/v1/predict", content=files["cat.jpg"])]
        assert held.entered.acquire(timeout=10)
        late.append(pool.submit(client.post, "/v1/predict", content=files["cat.jpg"]))
        assert [answer.result().status_code for answer in late] == [504, 504]
    assert metric(client, "vovnet_accepted") == 0
    held.go.set()
    wait_until(lambda: metric(client, "vovnet_queue_length") == 0)
    assert client.post("/v1/predict", content=files["cat.jpg"]).status_code == 200
    assert held.batches == [1, 1]  # the first of the late ones, and the last


def test_a_long_body_is_refused_by_its_header(server):
    """Before any of it is sent; clients that send it all the same hear why, too."""
    with socket.create_connection((server.base_url.host, server.base_url.port)) as long:
        long.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2000001\r\n\r\n")
        long.settimeout(10)
        assert long.recv(10_000).startswith(b"HTTP/1.1 413")
    answer = server.post("/v1/predict", content=b"x" * 2_000_001)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert "over 2000000 bytes" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/vovdet_nano/infer"])
def test_a_body_without_end_is_read_no_further_than_the_limit(server, path):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 200_000_000:
            sent += 100_000
            yield b"x" * 100_000

    answer = server.post(path, content=endless())
    assert answer.status_code == 413
    assert sent < 20_000_000  # of which most lies in buffers of the system


def test_a_form_without_end_too(server):
    head = b'--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    def endless():
        yield head
        for _ in range(100):
            yield b"x" * 100_000

    kind = {"Content-Type": "multipart/form-data; boundary=a"}
    assert server.post("/v1/predict", content=endless(), headers=kind).status_code == 413


def test_a_slow_body_is_given_up(serve):
    client = serve(Limits(timeout=0.3))
    with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        slow.settimeout(10)
        answer = slow.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408")
        while slow.recv(10_000):  # until it is closed
            pass


def test_no_more_bodies_arrive_at_once_than_fit(serve, files):
    client = serve(Limits(queue=2))
    address = (client.base_url.host, client.base_url.port)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        for one in slow:
            one.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        time.sleep(0.3)
        answer = client.post("/v1/predict", content=files["cat.jpg"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        slow[0].sendall(b"y" * 8)
        assert slow[0].recv(1000).startswith(b"HTTP/1.1 422")
        assert client.post("/v1/predict", content=files["cat.jpg"]).status_code == 200


def test_a_network_that_hangs_is_told_by_its_health(serve, held, files, monkeypatch):
    monkeypatch.setattr(batching, "STUCK", 0.2)
    client = serve(Limits(), detector=held.detector)
    assert client.get("/healthz").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/predict", content=files["cat.jpg"])
        assert held.entered.acquire(timeout=10)
        time.sleep(0.3)
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 503
        held.go.set()
        assert answer.result().status_code == 200
    assert client.get("/healthz").status_code == 200


def test_what_nobody_waits_for_is_not_computed(serve, held, files, metric, wait_until):
    client = serve(Limits(), detector=held.detector)
    cat = files["cat.jpg"]
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(cat)}\r\n\r\n".encode()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/predict", content=cat)
        assert held.entered.acquire(timeout=10)
        for count in range(3):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as gone:
                gone.sendall(head + cat)
                wait_until(lambda least=count: metric(client, "vovnet_queue_length") > least)
        wait_until(lambda: metric(client, "vovnet_accepted") == 1)
        assert 'vovnet_refused_total{reason="gone"} 3.0' in client.get("/metrics").text
        held.go.set()
        assert first.result().status_code == 200
    assert client.post("/v1/predict", content=cat).status_code == 200
    assert held.batches == [1, 1]


def test_a_client_that_leaves_is_no_error(serve, metric, wait_until):
    client = serve(Limits())
    with socket.create_connection((client.base_url.host, client.base_url.port)) as gone:
        gone.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        time.sleep(0.2)
    wait_until(lambda: 'vovnet_refused_total{reason="gone"} 1.0' in client.get("/metrics").text)


KEYS = ("0123456789abcdef0123", "another-key-of-some-length")


def test_keys(serve, files, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# two, while they are changed\n{KEYS[0]}\n\n  {KEYS[1]}\n")
    keys = read_keys(path)
    assert keys == tuple(hashlib.sha256(key.encode()).digest() for key in KEYS)
    client = serve(Limits(), keys=keys)
    ask = {"content": files["cat.jpg"]}
    for headers in ({}, {"Authorization": f"Bearer {KEYS[0]}x"}, {"X-API-Key": "# two"}):
        answer = client.post("/v1/predict", headers=headers, **ask)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics", headers=headers).status_code == 401
        assert client.get("/v2/models/vovdet_nano", headers=headers).status_code == 401
    right = (
        {"Authorization": f"Bearer {KEYS[0]}"},
        {"Authorization": f"bearer  {KEYS[1]}"},
        {"X-API-Key": KEYS[1]},
    )
    for headers in right:
        assert client.post("/v1/predict", headers=headers, **ask).status_code == 200
    for path in ("/", "/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


def test_no_key_no_body_is_read(serve):
    """Who may not ask is told before the picture is sent."""
    client = serve(Limits(), keys=(b"0" * 32,))
    with socket.create_connection((client.base_url.host, client.base_url.port)) as stranger:
        stranger.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        stranger.settimeout(10)
        assert stranger.recv(10_000).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("# none\n", "holds no key"),
        ("short\n", "shorter than 16"),
        ("ключ" * 9, "ASCII"),
    ],
)
def test_key_files_that_protect_nothing(tmp_path, text, said):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(VovnetError, match=said):
        read_keys(tmp_path / "keys")
    with pytest.raises(VovnetError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_pages_from_elsewhere_may_ask_only_if_they_are_named(serve, server, files):
    ours, other = {"Origin": "https://ours.example"}, {"Origin": "https://other.example"}
    asking = {"Access-Control-Request-Method": "POST"}
    client = serve(Limits(), origins=["https://ours.example"], keys=(b"0" * 32,))
    allow = "access-control-allow-origin"
    assert client.options("/v1/predict", headers=ours | asking).headers[allow] == ours["Origin"]
    assert client.get("/v1/model", headers=ours).headers[allow] == ours["Origin"]  # a 401
    assert allow not in client.get("/v1/model", headers=other).headers
    assert allow not in server.get("/v1/model", headers=ours).headers
    assert server.options("/v1/predict", headers=ours | asking).status_code == 405


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch", 0), ("queue", 0), ("max_bytes", 0), ("max_pixels", -1), ("timeout", 0)),
        *(("timeout", float("nan")), ("wait_ms", -1), ("wait_ms", float("inf"))),
    ],
)
def test_limits_that_make_no_sense(name, value):
    with pytest.raises(VovnetError, match=f"^--{name.replace('_', '-')} "):
        Limits(**{name: value})


def test_a_lone_client_does_not_wait_for_others(serve, files):
    client = serve(Limits(wait_ms=1000))
    [row] = client.post("/v1/predict", content=files["cat.jpg"]).json()["results"]
    assert row["ms"]["queue"] < 900


def test_pictures_of_one_request_wait_for_each_other(serve, held, files):
    client = serve(Limits(wait_ms=1000, batch=3), detector=held.detector)
    held.go.set()
    sent = [("image", (name, files[name])) for name in ("cat.jpg", "person.png", "large.jpg")]
    assert client.post("/v1/predict", files=sent).status_code == 200
    assert held.batches == [3]


def test_what_the_network_raises_is_no_fault_of_the_client(serve, detector, files):
    def fail(pixels, how):
        raise MemoryError if how.conf == 0.5 else VovnetError("ncnn failed")

    broken = copy(detector)
    broken.find = fail
    client = serve(Limits(), detector=broken)
    answer = client.post("/v1/predict", content=files["cat.jpg"])
    assert (answer.status_code, answer.json()["error"][:16]) == (500, "this is a bug in")
    answer = client.post("/v1/predict?conf=0.5", content=files["cat.jpg"])
    assert (answer.status_code, answer.json()["error"][:13]) == (503, "out of memory")
    assert client.get("/healthz").status_code == 200
