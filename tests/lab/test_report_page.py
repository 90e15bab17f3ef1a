"""The report of given rows, whole: each figure's place, size and text, held by a page that was
looked at once. `report.html` beside this file is that page without its style and script."""

import re
from pathlib import Path
from typing import Any

import pytest

from vovnet.lab.count import LayerCount
from vovnet.lab.report import render_page

PAGE = Path(__file__).with_name("report.html")
GPU = {"cuda": [{"name": "Test GPU", "memory_bytes": 80 * 2**30}], "memory_bytes": 64 * 2**30}
MACHINE = {"cpu": {"model": "CPU B", "cores": 8, "usable_cores": 4, "torch_threads": 4,
                   "flags": []}, "platform": "Linux", "versions": {"torch": "2.14"}}  # fmt: skip


@pytest.fixture
def rows(bench_row, failed_row) -> list[dict[str, Any]]:
    """Two machines, four precisions, energy and accuracy, unsteady, wrong and failed rows."""
    accurate = {"map_50_95": 0.31, "joules": 2.5}
    there = MACHINE | GPU
    latency = bench_row(ms=12.5)["latency_ms"]
    missing = {**latency, "value": None, "reason": "no photograph"}
    return [
        bench_row("small", 5.0, scale=0.1, **accurate),
        bench_row("small", 3.0, scale=0.1, runtime="ncnn", map_50_95=0.3, joules=1.5),
        bench_row("middle", 20.0, scale=0.5, precision="bf16", map_50_95=0.35, joules=8.0),
        bench_row("middle", 21.0, scale=0.5, runtime="openvino", map_50_95=0.35, joules=8.2),
        bench_row("large", 80.0, scale=2.0, repeats=(1.0, 1.5, 2.0), map_50_95=0.4, joules=30.0),
        bench_row("large", 40.0, scale=2.0, precision="int8", imgsz=320, correct=False),
        bench_row("large", 9.0, scale=2.0, precision="fp16", device="cuda", environment=there,
                  map_50_95=0.4, joules=20.0, stages_ms={"decode": missing, "network": latency},
                  started="2026-11-25T08:00:00+00:00"),
        failed_row("strange", "ncnn: no such operator"),
    ]  # fmt: skip


def layers() -> list[LayerCount]:
    shapes = [("net.stem.0", 4, 3), ("net.stem.1", 9, 2), ("net.stage2.conv", 6, 7)]
    return [
        LayerCount(name, "conv 3×3", macs * 1_000_000, access * 100_000, access * 5e4, 1.5)
        for name, macs, access in shapes
    ]


def test_the_page_is_the_one_that_was_looked_at(rows, tmp_path):
    page = render_page(rows, layers={"small": layers()}, title="Report")
    page = re.sub(r"(<(style|script)[^>]*>).*?(</\2>)", r"\1\3", page, flags=re.S)
    page = re.sub(r"sha256-[^']+", "sha256-", page)
    if page != PAGE.read_text(encoding="utf-8"):
        (tmp_path / "report.html").write_text(page, encoding="utf-8")
        pytest.fail(f"if this change is meant, look at {tmp_path}/report.html and put it there")
