"""The page of an evaluation: what it says, that it trusts no name, and that a browser opens it."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from vovnet.charts.shapes import Text
from vovnet.review.choosing import Chosen
from vovnet.review.matches import Judged, judged
from vovnet.review.page import page_of_found
from vovnet.review.pictures import FALSE, HIT, MISSED, batch_picture, pair

from .conftest import box, found, scenes

EVIL = '<script>document.title = "taken"</script><img src="http://example.invalid/x">'
LINKS = ("src", "href", "srcset", "data", "action", "xlink:href")


@pytest.fixture
def beside(pictured) -> Judged:
    first = [(box(0, 0), 0, 0.9), (box(70, 70), 0, 0.8), (box(0, 60), 1, 0.3)]
    every = [found(first, pictured.names), found([], pictured.names)]
    return judged(every, pictured.records, pictured.names)


class Tags(HTMLParser):
    """Collects every element and its attributes as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.tags


def test_the_page_tells_what_it_must(beside):
    html = page_of_found(beside, "my weights", [("data", "d, val")]).render()
    assert "<title>my weights</title>" in html
    # Of 4 objects 2 are found above 0.01 ... 0.29, among 3 detections: F1 is 4/7.
    assert "At the confidence 0.15, F1 is best: 66.7% of what is shown is right, and 50.0%" in html
    assert "vovnet predict IMAGE --weights &#39;my weights&#39; --conf 0.15" in html
    assert "1.png: 1 false, 1 missed" in html
    assert 'alt="2 found, 1 false, 1 missed"' in html
    assert 'alt="labels: 2 a, 1 b"' in html
    keys = re.findall(r'<figure id="(\w+)">', html)
    assert keys == ["precision_recall", "f1", "confusion", "errors", "sizes", "calibration"]


def test_the_page_asks_for_nothing_and_trusts_no_name(beside):
    names = (EVIL, "b")
    evil = judged([replace(one, names=names) for one in beside.found], beside.records, names)
    html = page_of_found(evil, EVIL, [(EVIL, EVIL)]).render()
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    found_tags = tags(html)
    links = [v for _, attributes in found_tags for key, v in attributes.items() if key in LINKS]
    assert links[0] == "data:,"  # the icon, so that none is asked for
    assert all(link.startswith("data:image/jpeg;base64,") for link in links[1:])
    assert "script" not in [tag for tag, _ in found_tags]
    assert not any("style" in attributes for _, attributes in found_tags)
    [policy] = [a["content"] for _, a in found_tags if a.get("http-equiv")]
    assert re.fullmatch(r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/]+=*'", policy)


def test_what_a_screen_reader_and_a_keyboard_need(beside):
    html = page_of_found(beside, "w", []).render()
    found_tags = tags(html)
    assert all(a.get("alt") for tag, a in found_tags if tag == "img")
    drawings = [a for tag, a in found_tags if tag == "svg" and a.get("role") == "img"]
    assert all(a["aria-label"] for a in drawings)
    heads = [int(tag[1]) for tag, _ in found_tags if re.fullmatch("h[1-6]", tag)]
    assert heads[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(heads))
    assert all("tabindex" in a for _, a in found_tags if a.get("class") == "scroll")
    assert all(a.get("scope") for tag, a in found_tags if tag == "th")
    ids = [a["id"] for _, a in found_tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_picture_shows_what_is_right_false_and_missed(beside, tmp_path):
    both = pair(beside, Chosen(0, ""), 0.25)
    assert both is not None
    data = base64.b64decode(both.found.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    # The left edge of each box, in its middle.
    for (x, y), colour in {(0, 10): HIT, (70, 80): FALSE, (40, 10): MISSED}.items():
        assert np.abs(pixels[y, x] - colour).max() < 90, (x, y)
        others = [other for other in (HIT, FALSE, MISSED) if other != colour]
        assert all(
            np.abs(pixels[y, x] - colour).sum() < np.abs(pixels[y, x] - o).sum() for o in others
        )


def test_pictures_that_are_gone_are_left_out(beside):
    for record in beside.records:
        record.path.unlink()
    html = page_of_found(beside, "w", []).render()
    assert "<img" not in html
    assert "Most mistakes" not in html


@settings(max_examples=12, deadline=None)
@given(scenes())
def test_any_scene_makes_a_page_whose_texts_stay_inside(drawn):
    every, records, names = drawn
    page = page_of_found(judged(every, records, names), "w", [])
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page.render()).lower()
    for drawing in page.drawings().values():
        for shape in drawing.shapes:
            if isinstance(shape, Text):
                assert -1 <= shape.x <= drawing.width + 1
                assert 0 <= shape.y <= drawing.height
                if shape.anchor == "start" and not shape.turned:
                    assert shape.x + 5 * len(shape.text) <= drawing.width + 1, shape.text


def test_nothing_labelled_and_nothing_found(pictured):
    empty = found([], pictured.names)
    bare = [replace(r, boxes=r.boxes[:0], labels=r.labels[:0], difficult=r.difficult[:0],
                    crowd=r.crowd[:0]) for r in pictured.records]  # fmt: skip
    html = page_of_found(judged([empty, empty], bare, pictured.names), "w", []).render()
    assert "No object is labelled in these images" in html
    assert "vovnet predict IMAGE --weights w</code>" in html
    html = page_of_found(judged([empty, empty], pictured.records, pictured.names), "w", []).render()
    assert "No detection is right at any confidence" in html


def test_a_batch_is_a_small_picture():
    rng = np.random.default_rng(0)
    for count, side in product((1, 3, 16), (96, 640)):
        pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        boxes = [np.array([[side / 4, side / 4, side / 2, side / 2]])] * count
        jpeg = batch_picture(pixels, boxes, [np.array([1])] * count, ("a", "b"))
        assert len(jpeg) <= 300_000
        assert jpeg[:2] == b"\xff\xd8"


@pytest.mark.slow  # matplotlib takes its time
def test_figures_as_png(beside, tmp_path):
    page = page_of_found(beside, "w", [])
    page.write(None, tmp_path / "figures")
    files = sorted(path.stem for path in (tmp_path / "figures").iterdir())
    assert files == sorted(page.drawings())
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as image:
            assert image.width >= 800
            assert len(image.convert("L").getcolors()) > 20  # something is on it


# ---- a browser


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_opens_it_without_error_or_request(beside, browser, tmp_path, scheme):
    path = tmp_path / "page.html"
    page_of_found(beside, "w", [("data", "d" * 300)]).write(path)
    with browser("--window-size=500,900") as chromium:
        chromium.open("about:blank")
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.call("Emulation.setEmulatedMedia", features=features)
        size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        chromium.call("Emulation.setDeviceMetricsOverride", **size)
        chromium.events = []
        chromium.call("Page.navigate", url=path.as_uri())
        chromium.wait_for("Page.loadEventFired")
        assert [r for r in chromium.requests() if not r.startswith("data:")] == [path.as_uri()]
        assert chromium.complaints() == []
        assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
        shade = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
        assert shade == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
        assert chromium.evaluate(broken) == 0
        small = (
            "Math.min(...[...document.querySelectorAll('figure svg text')].map(t => "
            "parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a, "
            "t.getScreenCTM().b)))"
        )
        assert chromium.evaluate(small) >= 8  # pixels, on a phone
        assert chromium.evaluate("document.querySelector('.scroll').tabIndex") == 0
