"""The page at /, in a real browser: boxes lie where `predict` puts them."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from vovnet.detections import Detections
from vovnet.images import decode_image
from vovnet.serve import Limits

READY = "document.getElementById('model').textContent"
STATUS = "document.getElementById('status').textContent"
ROWS = "[...document.querySelectorAll('#found li')].map(item => item.innerText)"


@pytest.fixture
def ask(wait_until):
    """Chooses a file in the page and waits for its answer."""

    def choose(chromium, path):
        root = chromium.call("DOM.getDocument")["root"]["nodeId"]
        node = chromium.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        chromium.evaluate("say('waiting')")
        chromium.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])
        wait_until(lambda: chromium.evaluate(STATUS).startswith(("Found", "Nothing")))

    return choose


def canvas(chromium):
    """The pixels of the canvas, H×W×4."""
    url = chromium.evaluate("document.getElementById('view').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def test_boxes_lie_where_predict_puts_them(server, detector, files, browser, ask, tmp_path):
    with browser() as chromium:
        chromium.open(str(server.base_url))
        assert chromium.evaluate("getComputedStyle(document.body).maxWidth") != "none"
        for name in ("cat.jpg", "turned.jpg", "person.png"):
            (tmp_path / name).write_bytes(files[name])
            ask(chromium, tmp_path / name)
            found = detector.detect(files[name])
            wanted = [f"{found.names[i]}" for i in found.labels]
            rows = chromium.evaluate(ROWS)
            assert [row.split()[0] for row in rows] == wanted
            pixels = canvas(chromium)
            assert pixels.shape[:2] == found.image_size
            check_frames(chromium, pixels[..., :3].astype(int), found, files[name])
        assert chromium.complaints() == []


def check_frames(chromium, pixels, found, data):
    """The frame of the best box has its colour at its edges, and the photograph is elsewhere."""
    ink = "getComputedStyle(document.querySelector('#found li span')).backgroundColor"
    colour = [int(part) for part in chromium.evaluate(ink)[4:-1].split(",")]
    left, top, right, bottom = found.boxes[0]
    x, y = int((left + right) / 2), int((top + bottom) / 2)
    for point in ((y, int(right)), (int(bottom), x), (y, int(left))):
        assert np.abs(pixels[point] - colour).max() <= 3, point
    whole = np.asarray(decode_image(data)[0]).astype(int)
    inside = (slice(y - 20, y + 20), slice(x - 20, x + 20))
    assert np.abs(pixels[inside] - whole[inside]).mean() < 4


def test_the_slider_asks_for_nothing(server, files, browser, ask, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(files["cat.jpg"])
    with browser() as chromium:
        chromium.open(str(server.base_url))
        ask(chromium, tmp_path / "cat.jpg")
        asked = len(chromium.requests())
        for least, count in ((0.95, 0), (0.25, 1)):
            chromium.evaluate(
                f"document.getElementById('conf').value = {least};"
                "document.getElementById('conf').dispatchEvent(new Event('input'))"
            )
            assert len(chromium.evaluate(ROWS)) == count
            assert chromium.evaluate("document.getElementById('shown').value") == f"{least:.2f}"
        assert len(chromium.requests()) == asked
        urls = {request.split("?")[0] for request in chromium.requests()}
        base = str(server.base_url)
        assert {url for url in urls if not url.startswith("data:")} == {
            f"{base}/",
            f"{base}/v1/model",
            f"{base}/v1/predict",
        }


def test_masks_are_painted_where_they_are(server, browser):
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:50] = rng.random((30, 30)) < 0.7
    mask[59, 70:] = True
    one = Detections([[0, 0, 0, 0]], [0.9], [0], ("cell",), masks=mask[None], image_size=(60, 80))
    row = {"height": 60, "width": 80, "detections": one.to_dict()}
    with browser() as chromium:
        chromium.open(str(server.base_url))
        chromium.evaluate(f"frame = () => {{}}; row = {json.dumps(row)}; draw()")
        np.testing.assert_array_equal(canvas(chromium)[..., 3] > 0, mask)
        assert chromium.complaints() == []


def test_a_key_is_asked_for_and_a_refusal_told(serve, files, browser, wait_until, tmp_path):
    (tmp_path / "key").write_text("a-key-that-is-long-enough")
    from vovnet.serve.keys import read_keys

    client = serve(Limits(max_bytes=1000), keys=read_keys(tmp_path / "key"))
    with browser() as chromium:
        chromium.open(str(client.base_url))
        wait_until(lambda: chromium.evaluate("!document.getElementById('ask').hidden"))
        chromium.evaluate(
            "document.getElementById('key').value = 'a-key-that-is-long-enough';"
            "document.querySelector('#ask button').click()"
        )
        wait_until(lambda: "onnxruntime fp32" in chromium.evaluate(READY))
        chromium.evaluate("open(new File([new Uint8Array(2000)], 'a.jpg'))")
        wait_until(lambda: "over 1000 bytes" in chromium.evaluate(STATUS))


def test_the_camera(server, browser, wait_until):
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browser(*fake) as chromium:
        chromium.open(str(server.base_url))
        chromium.evaluate("document.getElementById('camera').click()")
        wait_until(lambda: "Network" in chromium.evaluate(STATUS))
        assert chromium.evaluate("document.getElementById('view').width") > 100
        assert canvas(chromium)[..., :3].std() > 10
        chromium.evaluate("document.getElementById('camera').click()")
        assert chromium.evaluate("stream") is None
        assert chromium.complaints() == []


def test_every_control_has_a_name_and_it_fits_a_phone(server, browser):
    with browser("--window-size=500,800") as chromium:
        chromium.open(str(server.base_url))
        nameless = (
            "[...document.querySelectorAll('input, button')]"
            ".filter(one => !(one.labels && one.labels.length) && !one.innerText.trim()).length"
        )
        assert chromium.evaluate(nameless) == 0
        assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_policy_lets_nothing_else_in(server):
    answer = server.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http://" not in answer.text
    assert "https://" not in answer.text
