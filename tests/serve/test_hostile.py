"""A corpus of what harms: each is refused with a 4xx and one line, and nothing of it is kept."""

import base64
import gzip
import io
import json
import random
import signal
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import pytest
from PIL import Image

from vovnet.serve import Limits

INFER = "/v2/models/vovdet_nano/infer"
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
Asked = dict[str, Any]  # what httpx takes


def encoded(kind: str) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(data, kind)
    return data.getvalue()


def spoilt(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cut off, overwritten, with other numbers in its header, and mixed with itself."""
    for share in (0.01, 0.1, 0.3):
        yield data[: max(4, int(len(data) * share))]
    for count in (1, 8, 64):
        bad = bytearray(data)
        for _ in range(count):
            bad[rng.randrange(len(bad) if count > 8 else 40)] = rng.choice((0, 1, 127, 128, 255))
        yield bytes(bad)
    at = rng.randrange(8, 30)
    yield data[:at] + b"\xff" * 4 + data[at + 4 :]
    yield data[:at] + rng.randbytes(len(data) - at)
    yield data[:40] * 50
    yield data[:2] + b"\0" * 1000


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (head, *chunks)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bombs() -> Iterator[bytes]:
    """Small files that say, or hold, that they are large."""
    zeros = zlib.compress(b"\0" * 20_000_000, 9)
    for width, height in ((9999, 9999), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)):
        yield png(width, height, (b"IDAT", zeros), (b"IEND", b""))
    for kind in (b"zTXt", b"iCCP"):
        yield png(8, 8, (kind, b"a\0\0" + zeros))  # and no picture
    yield b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 99999, 99999, 1, 24, *[0] * 6)
    yield b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," * 20
    yield b"P6 99999 99999 255\n"
    yield b"P5 1 1 " + b"9" * 100_000
    yield b"qoif" + struct.pack(">IIBB", 99999, 99999, 3, 0)
    entries = ((256, 4, 1, 99999), (257, 4, 1, 99999), (258, 3, 1, 8), (262, 3, 1, 1))
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    yield b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4)
    yield b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 4, 2**31, 8) * 3
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../etc/passwd", b"\0" * 10_000_000)
    yield packed.getvalue()
    yield gzip.compress(b"\0" * 10_000_000)
    yield b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><svg>&b;</svg>"
    yield b"%!PS\n(%pipe%id) (r) file\n"
    yield b"\0\0\0\x1cftypheic" + bytes(200)
    yield b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(30)


def pictures() -> Iterator[Asked]:
    rng = random.Random(0)
    for kind in KINDS:
        for data in spoilt(encoded(kind), rng):
            yield {"url": "/v1/predict", "content": data}
    for data in bombs():
        yield {"url": "/v1/predict", "content": data}
        text = base64.b64encode(data).decode()
        yield tensor(datatype="BYTES", shape=[1], data=[text])
    for size in (1, 10, 1000, 100_000):
        yield {"url": "/v1/predict", "content": rng.randbytes(size)}


NAMES = (
    *(
        "../../etc/passwd",
        "..\\..\\boot.ini",
        "/dev/zero",
        "\0",
        "a\r\nX: y",
        "a" * 3000,
        "%2e%2e/x",
    ),
    *("‮gpj.exe", "\ud800", '"; filename="b', "$(reboot)", "{0.__class__}", "<script>", "."),
)


def forms() -> Iterator[Asked]:
    """Names that mean something elsewhere, on files that are none; and forms that are none."""
    for name in NAMES:
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"'
        yield form(b"--b\r\n" + head.encode("utf-8", "surrogatepass") + b"\r\n\r\nx\r\n--b--\r\n")
        head = f'Content-Disposition: form-data; name="{name}"; filename="a"'
        yield form(b"--b\r\n" + head.encode("utf-8", "surrogatepass") + b"\r\n\r\nx\r\n--b--\r\n")
    image = b'Content-Disposition: form-data; name="image"; filename="a"\r\n'
    for body in (
        *(b"", b"--", b"--b", b"--b\r\n", b"--b--\r\n", b"\r\n" * 1000, b"--b\r\n" * 1000),
        *(b"--b\r\n" + image, b"--b\r\n" + image + b"\r\n" + b"x" * 1000, b"--c\r\n\r\nx\r\n--c--"),
        *(
            b"--b\r\n" + b"A: b\r\n" * 500 + image + b"\r\nx\r\n--b--",
            b"--b\r\n: \r\n\r\n\r\n--b--",
        ),
        *(b"--b\r\nA" + b"a" * 1_500_000, b"--b\r\nA:" + b"a" * 1_500_000, b"--b\r\n\0:\r\n\r\n"),
        *((b"--b\r\n" + image + b"\r\nx\r\n") * 5000 + b"--b--", b"--b\r\n\r\n\r\n" * 5000),
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n" + image + b"\r\n--c\r\n--b--",
    ):
        yield form(body if isinstance(body, bytes) else bytes(body))
    for kind in ("", "; boundary", "; boundary=", '; boundary="', "; boundary=" + "b" * 2000):
        headers = {"Content-Type": "multipart/form-data" + kind}
        yield {"url": "/v1/predict", "content": b"--b\r\n\r\n--b--", "headers": headers}


def form(body: bytes) -> Asked:
    return {"url": "/v1/predict", "content": body, "headers": FORM}


def tensor(**parts: Any) -> Asked:
    base = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 0]}
    return infer({"inputs": [base | parts]})


def infer(body: Any) -> Asked:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"url": INFER, "content": content}


ODD = (None, True, -1, 0, 1e308, 10**400, "", "\ud800", "\0", [], [[]], {}, {"a": []}, [None])


def tensors() -> Iterator[Asked]:
    """JSON of other types and sizes than are asked for, at every place."""
    good = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}
    for key, value in product(good, ODD):
        yield infer({"inputs": [good | {key: value}]})
    for value in ODD:
        yield infer({"inputs": value})
        yield infer(value)
        if value not in (None, [], {}):
            yield infer({"inputs": [good], "outputs": value})
            yield infer({"inputs": [good], "parameters": value})
        for name in ("conf", "max_det", "classes", "agnostic"):
            yield infer({"inputs": [good], "parameters": {name: value}})
    for body in (
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b"NaN",
        b"\xff",
        b'"',
        b"1e9999",
    ):
        yield infer(body)
    yield infer(
        b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,1,1,3],"data":[NaN,1,1]}]}'
    )
    yield tensor(shape=[1] * 100_000)
    yield tensor(shape=[10**9, 10**9, 10**9, 3])
    yield tensor(data=[[[[0] * 3] * 99] * 99])
    yield tensor(datatype="BYTES", shape=[500], data=["AAAA"] * 500)


def queries() -> Iterator[Asked]:
    for name, value in product(
        ("conf", "iou", "max_det", "agnostic", "classes", "conf[]", "..", "\0"),
        ("nan", "inf", "-1", "1e999", "9" * 5000, "%00", "../..", "%ff%fe", "'; drop"),
    ):
        yield {"url": f"/v1/predict?{name.replace(chr(0), '%00')}={value}", "content": b"x"}
    for path in ("/../../etc/passwd", "/v2/models/..%2f..%2fetc/passwd", "/%00", "/" + "a" * 5000):
        yield {"url": path, "content": b"x"}
    for accept in ("text/html", ",;,;", "image/png;q=nan", "a" * 5000, "application/json;q=0"):
        yield {"url": "/v1/predict", "content": b"x", "headers": {"Accept": accept}}
    for name in ("gzip", "deflate, br", "x" * 3000):
        yield {"url": "/v1/predict", "content": b"x", "headers": {"Content-Encoding": name}}


RAW = (
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",  # without a host
    b"GET /\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nA" + b"a" * 200_000,
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 500 + b"\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    bytes(range(256)) * 20,
)


def refuse(client: Any, asked: Asked) -> int:
    answer = client.request("POST", **asked)
    assert answer.status_code < 500, (str(asked)[:300], answer.text)
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"], str(asked)[:300]
        assert answer.json()["error"].isprintable(), str(asked)[:300]
        assert len(answer.content) < 8000, str(asked)[:300]
    return answer.status_code


@pytest.mark.slow
def test_what_harms_is_refused_and_leaves_nothing(running, metric, wait_until):
    """Its memory after the second round is that after the sixth: the first fill what is kept."""
    corpus = [*pictures(), *forms(), *tensors(), *queries()]
    limits = ("--max-bytes", "2000000", "--max-pixels", "1000000")
    with running(*limits) as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        grown = []
        for _ in range(6):
            statuses = [refuse(client, asked) for asked in corpus]
            wait_until(lambda: metric(client, "vovnet_accepted") == 0)
            grown.append(metric(client, "process_resident_memory_bytes"))
        refused = [status for status in statuses if status >= 400]
        assert len(refused) >= 300
        assert len(refused) > 0.9 * len(corpus)  # decoders make do with some of the spoilt
        assert grown[5] - grown[1] < 6e6, grown
        assert 'reason="bug"' not in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
def test_what_is_no_http(server, data):
    with socket.create_connection((server.base_url.host, server.base_url.port)) as raw:
        raw.settimeout(10)
        raw.sendall(data)
        answer = raw.recv(10_000)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    assert server.get("/healthz").status_code == 200


@pytest.mark.slow
def test_many_slow_clients_keep_nobody_out_for_long(serve, files):
    """A head without end, bodies of a byte a second: others are answered as soon as these are
    given up."""
    client = serve(Limits(timeout=1, queue=8))
    address = (client.base_url.host, client.base_url.port)
    lines = (b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n")
    slow = [socket.create_connection(address) for _ in range(200)]
    for i, one in enumerate(slow):
        one.sendall(lines[i % 2] + b"Content-Length: 999\r\n\r\nx" * (i % 2))
    until = time.monotonic() + 10
    while (answer := client.post("/v1/predict", content=files["cat.jpg"])).status_code == 503:
        assert answer.headers["retry-after"] == "1"
        assert time.monotonic() < until
        time.sleep(0.1)
    assert answer.status_code == 200
    for one in slow:
        one.close()
    assert client.get("/healthz").status_code == 200
