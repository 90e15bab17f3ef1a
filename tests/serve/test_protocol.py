"""The Open Inference Protocol, version 2."""

import base64

import numpy as np
import pytest

URL = "/v2/models/vovdet_nano"


def arrays(answer):
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.array(output["data"]).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


def check(outputs, wanted):
    """Outputs N×K are those of `Detections`, and zeros beyond each count."""
    assert outputs["count"].tolist() == [len(one) for one in wanted]
    assert outputs["boxes"].shape == (len(wanted), max(map(len, wanted)), 4)
    for index, one in enumerate(wanted):
        for name in ("boxes", "scores", "labels"):
            got = outputs[name][index]
            np.testing.assert_array_equal(got[: len(one)], getattr(one, name))
            assert not got[len(one) :].any()


def test_files_in_base64(server, detector, files):
    texts = [base64.b64encode(data).decode() for data in files.values()]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    body = {"id": "7", "inputs": [tensor], "parameters": {"conf": 0.02, "max_det": 4}}
    answer = server.post(f"{URL}/infer", json=body)
    assert answer.json()["id"] == "7"
    assert answer.json()["model_name"] == "vovdet_nano"
    check(arrays(answer), [detector.detect(d, 0.02, max_det=4) for d in files.values()])


@pytest.mark.parametrize("nested", [True, False])
def test_pixels(server, detector, photographs, nested):
    pixels = np.stack([np.asarray(p.resize((120, 90))) for p in photographs])
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": data}
    body = {"inputs": [tensor], "parameters": {"conf": 0.05, "classes": ["person", "cat"]}}
    wanted = detector.detect(pixels, 0.05, classes=["person", "cat"])
    assert sum(map(len, wanted))
    check(arrays(server.post(f"{URL}/infer", json=body)), wanted)
    body["outputs"] = [{"name": "count"}, {"name": "scores"}]
    assert list(arrays(server.post(f"{URL}/infer", json=body))) == ["count", "scores"]


def test_what_clients_ask_first(server):
    assert server.get("/v2").json()["name"] == "vovnet"
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get(f"{URL}/ready").json() == {"name": "vovdet_nano", "ready": True}
    told = server.get(URL).json()
    assert [one["name"] for one in told["inputs"]] == ["images"]
    assert [one["name"] for one in told["outputs"]] == ["boxes", "scores", "labels", "count"]
    for path in ("", "/ready"):
        assert server.get(f"/v2/models/other{path}").status_code == 404
    assert server.post("/v2/models/other/infer", json={}).status_code == 404
