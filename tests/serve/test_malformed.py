"""Whatever clients send: one line that says what is wrong, a 4xx, and the service goes on."""

import base64
import json
import random
import struct
import zlib

import pytest

PNG = b"\x89PNG\r\n\x1a\n"


def bomb(width=30_000, height=30_000):
    """A small PNG that says that it is a large picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")))
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def refusal(answer, *statuses):
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error.isprintable()
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello", "not a readable picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable picture"),
        (PNG, "not a readable picture"),
        (bomb(), "too many pixels"),
        (bomb(2000, 1000), "over the limit of 1 million"),
        (b"%PDF-1.7", "not a readable picture"),
        (b"\0" * 5000, "not a readable picture"),
        (b"image=%FF%D8", "not a readable picture"),
    ],
)
def test_no_picture(server, data, said):
    assert said in refusal(server.post("/v1/predict", content=data), 422)


def test_damaged_files_of_all_kinds(server, files):
    """Cut off, and with bytes changed: refused, or answered where a decoder makes do."""
    rng = random.Random(0)
    for data in (files["cat.jpg"], files["person.png"]):
        for _ in range(12):
            bad = bytearray(data[: rng.randrange(1, len(data))])
            for _ in range(rng.randrange(20)):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
            answer = server.post("/v1/predict", content=bytes(bad))
            assert answer.status_code == 200 or refusal(answer, 422)
    assert server.post("/v1/predict", content=files["cat.jpg"]).status_code == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("conf=2", "conf"),
        ("conf=nan", "conf"),
        ("conf=x", "conf"),
        ("iou=-1", "iou"),
        ("max_det=0", "max_det"),
        ("max_det=99999999999999999999", "max_det"),
        ("classes=", "names no class"),
        ("classes=cta", "Did you mean cat"),
        ("classes=99", "only 0 to 19"),
        ("classes=%00%0a", "unknown class"),
        ("agnostic=maybe", "agnostic"),
        ("confidence=0.5", "confidence"),
    ],
)
def test_options_that_make_no_sense(server, files, query, said):
    answer = server.post(f"/v1/predict?{query}", content=files["cat.jpg"])
    assert said in refusal(answer, 422)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("multipart/form-data", b"x", "no boundary"),
        ("multipart/form-data; boundary=a", b"", "cut off"),
        ("multipart/form-data; boundary=a", b"garbage", "malformed"),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n--a--\r\n", "unknown field"),
        ("multipart/form-data; boundary=a", b"--a--", "no picture"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--a--\r\n',
            "no file",
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="conf"\r\n\r\n0.5\r\n--a--\r\n',
            "options in the query",
        ),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx',
            "cut off",
        ),
    ],
)
def test_forms_that_are_malformed(server, kind, body, said):
    answer = server.post("/v1/predict", content=body, headers={"Content-Type": kind})
    assert said in refusal(answer, 400, 422)


def test_one_bad_picture_refuses_its_request_and_names_it(server, files):
    sent = [("image", ("good.jpg", files["cat.jpg"])), ("image", ("bad\n.jpg", b"no"))]
    error = refusal(server.post("/v1/predict", files=sent), 422)
    assert error.startswith("bad")
    assert "good" not in error


def test_other_ways_to_ask_wrongly(server, files):
    cat = files["cat.jpg"]
    assert "openapi" in refusal(server.get("/nothing"), 404)
    assert "/v1/predict" in refusal(server.get("/v1/predict"), 405)
    pair = [("image", ("a.jpg", cat)), ("image", ("b.jpg", cat))]
    picture = {"Accept": "image/png"}
    assert "send one" in refusal(server.post("/v1/predict", files=pair, headers=picture), 406)
    video = {"Accept": "video/mp4"}
    assert "image/png" in refusal(server.post("/v1/predict", content=cat, headers=video), 406)
    packed = {"Content-Encoding": "gzip"}
    assert "compressed" in refusal(server.post("/v1/predict", content=cat, headers=packed), 415)


TENSOR = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0] * 6}
BYTES = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        {"inputs": {}},
        {"inputs": []},
        {"inputs": [TENSOR, TENSOR]},
        {"inputs": [7]},
        {"inputs": [TENSOR], "id": 7},
        {"inputs": [TENSOR], "parameters": 7},
        {"inputs": [TENSOR], "parameters": {"conf": "high"}},
        {"inputs": [TENSOR], "parameters": {"threshold": 0.5}},
        {"inputs": [TENSOR], "parameters": {"classes": ["unicorn"]}},
        {"inputs": [TENSOR], "outputs": [{"name": "masks"}]},
        {"inputs": [TENSOR], "outputs": 7},
        {"inputs": [TENSOR], "outputs": {}},
        {"inputs": [TENSOR], "outputs": ""},
        {"inputs": [TENSOR], "outputs": [{"name": ["x"]}]},
        {"inputs": [TENSOR | {"name": "input"}]},
        {"inputs": [TENSOR | {"datatype": "FP32"}]},
        {"inputs": [TENSOR | {"datatype": None}]},
        {"inputs": [TENSOR | {"shape": [1, 2, 3]}]},
        {"inputs": [TENSOR | {"shape": [1, 1, 3, 3]}]},
        {"inputs": [TENSOR | {"shape": [10**9, 10**9, 10**9, 3]}]},
        {"inputs": [TENSOR | {"shape": [1, 0, 2, 3]}]},
        {"inputs": [TENSOR | {"shape": [1, True, 2, 3]}]},
        {"inputs": [TENSOR | {"shape": "1123"}]},
        {"inputs": [TENSOR | {"data": [256] * 6}]},
        {"inputs": [TENSOR | {"data": [-1] * 6}]},
        {"inputs": [TENSOR | {"data": [0.5] * 6}]},
        {"inputs": [TENSOR | {"data": [10**30] * 6}]},
        {"inputs": [TENSOR | {"data": ["a"] * 6}]},
        {"inputs": [TENSOR | {"data": [None] * 6}]},
        {"inputs": [TENSOR | {"data": [[1, 2], [3]]}]},
        {"inputs": [TENSOR | {"data": [[1, 2, 3], [4, 5, 6]]}]},
        {"inputs": [TENSOR | {"data": "AAAA"}]},
        {"inputs": [BYTES]},
        {"inputs": [BYTES | {"data": []}]},
        {"inputs": [BYTES | {"data": ["?"]}]},
        {"inputs": [BYTES | {"data": ["é"]}]},
        {"inputs": [BYTES | {"data": [7]}]},
        {"inputs": [BYTES | {"shape": [2]}]},
        {"inputs": [BYTES | {"shape": [65], "data": ["AAAA"] * 65}]},
    ],
    ids=lambda body: str(body)[:60],
)
def test_tensors_that_are_malformed(server, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    refusal(server.post("/v2/models/vovdet_nano/infer", content=data), 400, 413, 422)


def test_the_service_still_answers(server, files):
    text = base64.b64encode(files["cat.jpg"]).decode()
    body = {"inputs": [BYTES | {"data": [text]}]}
    assert server.post("/v2/models/vovdet_nano/infer", json=body).status_code == 200
    assert server.get("/healthz").json() == {"status": "ok"}
    assert 'reason="bug"' not in server.get("/metrics").text
