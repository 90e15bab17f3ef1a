"""The report: what the page says, where things are drawn, and that a browser opens it in peace."""

from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vovnet.charts.scale import Scale, span, spread, ticks
from vovnet.charts.shapes import Mark, Text
from vovnet.errors import VovnetError
from vovnet.lab.count import LayerCount
from vovnet.lab.report import render_page, write_figures, write_report
from vovnet.lab.report.figures import layer_bars, scatters
from vovnet.lab.report.layout import lay_out, sections

EVIL = '<script>document.title = "taken"</script><img src="http://example.invalid/x">'


def layers(*names: str) -> list[LayerCount]:
    return [LayerCount(name, "conv 3×3", 4_000_000, 300_000, 200_000.0, 1.5) for name in names]


@pytest.fixture
def rows(bench_row, failed_row) -> list[dict[str, Any]]:
    """Two models in two runtimes, one wrong, one unsteady and one failed row."""
    return [
        bench_row("vovnet39", 50.0),
        bench_row("vovnet39", 30.0, runtime="ncnn"),
        bench_row("resnet50", 40.0, scale=0.6),
        bench_row("resnet50", 35.0, scale=0.6, runtime="ncnn", repeats=(1.0, 2.0, 3.0)),
        bench_row("vovnet39", 9.0, runtime="openvino", precision="int8", correct=False),
        failed_row(EVIL, "ncnn: no such operator"),
    ]


# ---- scales


numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, max_size=30), st.floats(0.1, 50))
def test_spread_keeps_distance_order_and_room(wanted, gap):
    low, high = -100.0, 400.0
    placed = spread(wanted, gap, low, high)
    fair = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    steps = [placed[b] - placed[a] for a, b in pairwise(order)]
    assert all(step >= fair - 1e-6 for step in steps)
    assert all(low - 1e-6 <= position <= high + 1e-6 for position in placed)


def test_spread_moves_nothing_that_has_room():
    assert spread([300.0, 20.0, 100.0], 15, 0, 400) == [300.0, 20.0, 100.0]


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e8), st.booleans())
def test_ticks_lie_on_the_axis_and_are_not_many(low, factor, log):
    marks = ticks(low, low * factor, log=log)
    assert 1 <= len(marks) <= 12
    assert all(low * (1 - 1e-9) <= mark <= low * factor * (1 + 1e-9) for mark in marks)
    assert marks == sorted(set(marks))


def test_scales():
    assert Scale(1, 100, 0, 200, log=True)(10) == pytest.approx(100)
    assert Scale(0, 10, 200, 0)(2.5) == pytest.approx(150)


def test_the_air_around_the_values():
    """6 % of their span, a tenth of a single value, or 15 % (6 % of the decades) of a logarithm."""
    assert span([10.0, 5.0, 15.0], log=False) == pytest.approx((4.4, 15.6))
    assert span([-7.0], log=False) == pytest.approx((-7.7, -6.3))  # the axis needs a length
    assert span([0.0], log=False) == (-1.0, 1.0)
    assert span([2.0, 3.0], log=True) == pytest.approx((2 / 1.15, 3 * 1.15))
    assert span([1e5, 1.0], log=True) == pytest.approx((10**-0.3, 10**5.3))


def test_ticks_by_hand():
    assert ticks(0.0, 5.0, log=False) == [0, 1, 2, 3, 4, 5]
    assert ticks(0.0, 5.1, log=False) == [0, 2, 4]
    assert ticks(-0.3, 0.7, log=False) == pytest.approx([-0.2, 0, 0.2, 0.4, 0.6])
    assert ticks(10.0, 39.0, log=True) == [10, 20, 30]
    assert ticks(1.0, 4.0, log=True) == [1, 2]  # from a factor of 4 on, by decades
    assert ticks(1.0, 2999.0, log=True) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    assert ticks(1.0, 3000.0, log=True) == [1, 10, 100, 1000]


# ---- figures


def test_only_right_rows_are_drawn(rows):
    charts = {chart.key: chart for chart in scatters(rows)}
    assert list(charts) == ["latency", "speed", "computing", "roofline-cpu"]
    for chart in charts.values():
        drawn = {(p.name, p.runtime, p.precision) for p in chart.points}
        assert len(chart.points) == len(drawn) == 4
        assert ("vovnet39", "openvino", "int8") not in drawn
        assert [p.valid for p in chart.points].count(False) == 1
    assert charts["latency"].y.categories == ("vovnet39", "resnet50")  # fastest first


def test_the_values_of_the_points(bench_row):
    chart = {c.key: c for c in scatters([bench_row(ms=50.0, scale=2.0)])}
    [speed], [computing], [roofline] = (
        chart[key].points for key in ("speed", "computing", "roofline-cpu")
    )
    assert (speed.x, speed.y) == (pytest.approx(20.0), pytest.approx(44.0))  # images/s, M params
    assert computing.x == pytest.approx(80.0)  # 4 GFLOP in 50 ms
    assert (roofline.x, roofline.y) == (pytest.approx(40.0), pytest.approx(80.0))
    copy, peak = chart["roofline-cpu"].roofs
    ridge = peak.points[0]
    assert ridge == copy.points[1] == (pytest.approx(150 / 11), pytest.approx(150.0))
    (x, y), _ = copy.points
    assert y / x == pytest.approx(11.0)  # GB/s


def test_accuracy_and_energy_take_their_places(bench_row):
    with_map = bench_row("a", joules=2.5, map_50_95=0.31)
    charts = {chart.key: chart for chart in scatters([with_map])}
    assert charts["energy"].points[0].x == 2.5
    assert charts["energy"].points[0].y == 0.31
    assert "mAP" in charts["speed"].y.label
    # One model without accuracy cannot be placed on that axis: parameters again.
    charts = {chart.key: chart for chart in scatters([with_map, bench_row("b")])}
    assert "parameters" in charts["speed"].y.label


def test_sizes_and_batches_are_told_where_they_differ(bench_row):
    rows = [bench_row("a"), bench_row("a", imgsz=320), bench_row("b"), bench_row("b", batch=8)]
    names = {point.name for point in scatters(rows)[0].points}
    assert names == {"a @224", "a @320", "b ×1", "b ×8"}


def boxes(texts: list[Text]) -> Iterator[tuple[Text, Text]]:
    """Pairs of names whose boxes, at 5.5 pixels a character and 11 high, overlap."""
    for a, b in combinations(texts, 2):
        if abs(a.y - b.y) < 11 and abs(a.x - b.x) < 5.5 * min(len(a.text), len(b.text)):
            yield a, b


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1, 1e4), min_size=1, max_size=40), st.data())
def test_names_do_not_overlap_and_all_is_inside(latencies, data):
    from vovnet.lab.report.figures import Axis, Point, Scatter

    points = tuple(
        Point(ms, data.draw(st.floats(0.1, 100)), f"network {i}", "eager", "fp32", True, "")
        for i, ms in enumerate(latencies)
    )
    drawing = lay_out(Scatter("k", "t", "c", Axis("x"), Axis("y"), points))
    names = [s for s in drawing.shapes if isinstance(s, Text) and s.kind == "name"]
    assert len(names) == len(points)
    assert not list(boxes(names))
    for shape in drawing.shapes:
        if isinstance(shape, Mark | Text):
            assert 0 <= shape.x <= drawing.width
            assert 0 <= shape.y <= drawing.height


def test_layers_are_bracketed_by_part():
    names = ("net.stem.0", "net.stem.1", "net.stage2.conv", "net.stage3.conv", "net.stage3.cat")
    assert sections(layers(*names)) == [("stem", 0, 2), ("stage2", 2, 3), ("stage3", 3, 5)]
    [figure] = layer_bars({"vovnet39": layers(*names)})
    drawing = lay_out(figure)
    assert sum(getattr(s, "kind", "") == "access" for s in drawing.shapes) == len(names)
    assert sum(getattr(s, "kind", "") == "bound" for s in drawing.shapes) == len(names)


# ---- the page


LINKS = ("src", "href", "srcset", "data", "action", "xlink:href")


class Tags(HTMLParser):
    """Collects every element and its attributes as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


def test_the_page_tells_what_it_must(rows):
    page = render_page(rows, layers={"vovnet39": layers("stem", "stage2")}, title="A & B")
    assert "<title>A &amp; B</title>" in page
    assert "4 measured, 1 of them unsteady, 1 wrong, 1 failed" in page
    assert "ncnn: no such operator" in page
    assert "not measured: no energy counter can be read" in page
    assert "150 GFLOP/s" in page
    assert "Test CPU" in page
    assert "three repeats; valid if" in page
    assert "2.50 times the least" not in page
    assert "1.50 times the least" in page


def test_the_page_asks_for_nothing_and_trusts_no_name(rows):
    page = render_page(rows)
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    parser = Tags()
    parser.feed(page)
    links = [value for _, attributes in parser.tags for key, value in attributes if key in LINKS]
    assert links == ["data:,"]  # the icon, so that none is asked for
    assert [tag for tag, _ in parser.tags].count("script") == 1
    assert "https://" not in page
    assert " style=" not in page  # the policy would refuse it


def test_stages_have_a_table_of_their_own(bench_row):
    latency = bench_row(ms=12.5)["latency_ms"]
    missing = {**latency, "value": None, "reason": "no photograph"}
    page = render_page([bench_row("d", stages_ms={"decode": missing, "network": latency})])
    assert "From JPEG to boxes" in page
    assert "Not measured: no photograph" in page
    assert "From JPEG to boxes" not in render_page([bench_row("d")])


def test_all_rows_may_have_failed(failed_row, tmp_path):
    assert "1 failed" in render_page([failed_row("a", "broken")])
    with pytest.raises(VovnetError, match="nothing to draw"):
        write_figures(tmp_path, [failed_row("a", "broken")])


def test_no_rows():
    with pytest.raises(VovnetError, match="run vovnet bench first"):
        render_page([])


def test_pictures(rows, tmp_path):
    rows = [*rows, {**rows[0], "model": "costs $5 or $\\alpha"}]
    paths = write_figures(tmp_path / "new", rows, layers={"vovnet39": layers("a", "b")})
    assert [path.stem for path in paths] == [
        *("latency", "speed", "computing", "roofline-cpu"),
        "layers-1",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.width >= 1280
            assert len(image.convert("L").getcolors()) > 20  # something is on it


# ---- a browser


def test_a_browser_opens_it_without_error_or_request(rows, browser, tmp_path):
    page = tmp_path / "report.html"
    write_report(page, rows, layers={"vovnet39": layers("stem", "stage2")})
    broken = tmp_path / "broken.html"
    broken.write_text("<script>throw 1</script><img src='http://localhost:9/x.png'>")
    with browser() as chromium:
        chromium.open(page.as_uri())
        assert chromium.requests() == [page.as_uri()]
        assert chromium.complaints() == []
        assert chromium.evaluate("document.title") == "vovnet bench"
        assert chromium.evaluate("document.querySelectorAll('figure svg').length") == 5
        column = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[3].textContent)"
        assert chromium.evaluate("getComputedStyle(document.querySelector('h2')).fontSize") == (
            "19px"  # the policy lets the page's own style in
        )
        chromium.evaluate("document.querySelectorAll('th button')[3].click()")
        times = [text.split()[0] for text in chromium.evaluate(column)]
        assert times == ["9.00", "30.0", "40.0", "50.0", "70.0", "ncnn:"]  # failed ones last
        # The net has no holes: it catches a page that errs and asks.
        chromium.session, chromium.events = None, []
        chromium.open(broken.as_uri())
        assert len(chromium.requests()) == 2
        assert chromium.complaints()
