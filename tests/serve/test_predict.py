"""Answers over HTTP are those of `detect` and of `vovnet predict`, to the last digit."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from vovnet import __version__
from vovnet.images import decode_image
from vovnet.load import load_detector
from vovnet.serve import Limits

OPTIONS = (
    {},
    {"conf": 0.05},
    {"conf": 0.02, "iou": 0.3, "max_det": 3},
    {"conf": 0.05, "classes": ["cat", "person"]},
    {"conf": 0.02, "agnostic": True},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_picture_is_answered_as_detect_does(server, detector, files, options):
    for name, data in files.items():
        answer = server.post("/v1/predict", params=options, content=data)
        assert answer.status_code == 200, answer.text
        [row] = answer.json()["results"]
        assert row["detections"] == detector.detect(data, **options).to_dict(), name


def test_it_is_what_the_command_line_prints(server, files, run, tmp_path):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    outcome = run("predict", *files, "--json", "--no-save", "--runtime", "onnxruntime")
    rows = json.loads(outcome.out)
    sent = [("image", (name, data)) for name, data in files.items()]
    answered = server.post("/v1/predict", files=sent).json()
    assert answered["model"] == "vovdet_nano"
    assert [row["name"] for row in answered["results"]] == [row["path"] for row in rows]
    for ours, theirs in zip(answered["results"], rows, strict=True):
        for key in ("height", "width", "detections"):
            assert ours[key] == theirs[key]
    assert any(row["detections"] for row in rows)


def test_many_at_once_with_other_options_are_answered_as_each_alone(
    serve, held, files, detector, metric, wait_until
):
    """All wait while the network is held, so they are sure to be in batches with each other."""
    client = serve(Limits(batch=16, wait_ms=500, queue=64), detector=held.detector)
    asked = [(files[name], how) for name in ("person.png", "turned.jpg") for how in OPTIONS]
    with ThreadPoolExecutor(1 + len(asked)) as pool:
        first = pool.submit(client.post, "/v1/predict", content=files["cat.jpg"])
        assert held.entered.acquire(timeout=10)
        answers = [
            pool.submit(client.post, "/v1/predict", params=options, content=data)
            for data, options in asked
        ]
        wait_until(lambda: metric(client, "vovnet_queue_length") == len(asked))
        held.go.set()
        assert first.result().status_code == 200
    for (data, options), answer in zip(asked, answers, strict=True):
        [row] = answer.result().json()["results"]
        assert row["detections"] == detector.detect(data, **options).to_dict()
    assert held.batches[0] == 1
    assert max(held.batches) > 1
    assert len(held.batches) < len(asked)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("name", ["turned.jpg", "large.jpg"])
def test_the_annotated_picture_is_that_of_predict(server, detector, files, name, kind):
    answer = server.post("/v1/predict", content=files[name], headers={"Accept": f"image/{kind}"})
    assert answer.headers["content-type"] == f"image/{kind}"
    whole, _ = decode_image(files[name])
    wanted = np.asarray(detector.detect(files[name]).plot(whole)).astype(int)
    with Image.open(io.BytesIO(answer.content)) as drawn:
        away = np.abs(np.asarray(drawn.convert("RGB")) - wanted)
    assert away.max() == 0 if kind == "png" else away.mean() < 3


def test_the_model_tells_what_it_is(server, detector):
    told = server.get("/v1/model").json()
    assert told["classes"] == list(detector.names)
    assert (told["runtime"], told["precision"]) == ("onnxruntime", "fp32")
    assert told["version"] == __version__
    assert told["limits"]["max_pixels"] == 1_000_000


def test_what_happens_is_counted(serve, files, metric):
    client = serve(Limits())
    sent = [("image", (name, data)) for name, data in files.items()]
    assert client.post("/v1/predict", files=sent).status_code == 200
    assert client.post("/v1/predict", content=b"no picture").status_code == 422
    text = client.get("/metrics").text
    assert metric(client, "vovnet_images_total") == len(files)
    for stage, count in {"decode": 4, "queue": 4, "network": 4, "total": 1}.items():
        assert f'vovnet_stage_seconds_count{{stage="{stage}"}} {count}.0' in text
    assert 'vovnet_refused_total{reason="malformed"} 1.0' in text
    assert metric(client, "vovnet_accepted") == metric(client, "vovnet_queue_length") == 0


def test_the_description_has_an_example_of_every_answer(server):
    paths = server.get("/openapi.json").json()["paths"]
    predict = paths["/v1/predict"]["post"]
    assert {"conf", "iou", "max_det", "classes", "agnostic"} == {
        parameter["name"] for parameter in predict["parameters"]
    }
    assert "multipart/form-data" in predict["requestBody"]["content"]
    for status in ("200", "401", "413", "422", "503", "504"):
        assert "example" in predict["responses"][status]["content"]["application/json"]
    assert "/v2/models/{name}/infer" in paths


@pytest.mark.slow
def test_masks_of_a_detector_in_torch(serve, files):
    detector = load_detector("maskrcnn-vovnet19_slim.nuclei")
    client = serve(Limits(), detector=detector)
    data = pytest.importorskip("skimage.data").coins()[:200, :300]
    file = io.BytesIO()
    Image.fromarray(data).save(file, "PNG")
    wanted = detector.detect(file.getvalue(), 0.1)
    assert len(wanted) > 3
    assert wanted.masks.any()
    answer = client.post("/v1/predict?conf=0.1", content=file.getvalue())
    [row] = answer.json()["results"]
    assert row["detections"] == wanted.to_dict()
    answer = client.post("/v1/predict", content=file.getvalue(), headers={"Accept": "image/png"})
    with Image.open(io.BytesIO(answer.content)) as drawn:
        whole = decode_image(file.getvalue())[0]
        assert drawn.tobytes() == detector.detect(file.getvalue()).plot(whole).tobytes()
