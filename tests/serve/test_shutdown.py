"""`vovnet serve` as a process: it says where it is, and told to stop it answers what it took."""

import signal
import socket
import threading
import time
from typing import Any

import httpx
import pytest

from vovnet.serve.run import bind


def ask(url: str, picture: bytes, codes: list[Any]) -> None:
    """Ask over one connection until the server says that it ends."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        while True:
            try:
                answer = client.post(f"{url}/v1/predict", content=picture)
            except httpx.HTTPError as error:
                codes.append(error)
                return
            codes.append(answer.status_code)
            if answer.headers.get("connection") == "close":
                return


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_what_was_accepted_is_answered(running, files, number):
    codes: list[list[Any]] = [[] for _ in range(6)]
    with running("--batch", "4") as (process, url):
        threads = [threading.Thread(target=ask, args=(url, files["cat.jpg"], c)) for c in codes]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 30
        while not all(codes) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)
        time.sleep(0.3)
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 503
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        for thread in threads:
            thread.join(30)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    for one in codes:
        assert len(one) > 1
        assert set(one) == {200}
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


@pytest.mark.slow
def test_a_second_interrupt_ends_it_at_once(running):
    with running() as (process, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as unfinished:
            unfinished.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            time.sleep(1.5)
            assert process.poll() is None  # the body may still come
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def test_usage(refused):
    assert "--batch 0" in refused("serve", "--batch", "0")
    assert "--api-key-file none: cannot be read" in refused("serve", "--api-key-file", "none")
    assert "--cors example.org: is no origin" in refused("serve", "--cors", "example.org")
    assert "is no origin" in refused("serve", "--cors", "https://example.org/")
    assert "unknown" in refused("serve", "--weights", "unicorn")


def test_answers_are_not_held_back():
    """asyncio turns Nagle's algorithm off for sockets that name their protocol only."""
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken(refused):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("serve", "--port", port, "--runtime", "onnxruntime")
    assert f"--host 127.0.0.1 --port {port}: cannot be had (Address already in use)" in line
    assert "--port 99999" in refused("serve", "--port", "99999", "--runtime", "onnxruntime")
