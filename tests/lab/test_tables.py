"""Rows as a spreadsheet reads them, and the layers of models by name."""

import pytest

from vovnet.lab.export_csv import csv_row
from vovnet.lab.measurement import measured, not_measured
from vovnet.lab.row import BenchRow, unmeasured
from vovnet.lab.table import count_models, layers_of


def test_a_line_in_timms_units():
    """Counts are of one image, in thousands of millions and in millions; a batch of 4."""
    latency = measured([[40.0, 50.0, 60.0]] * 2, "ms", "by hand")
    what = unmeasured("no reason") | {
        "model": "x", "runtime": "eager", "precision": "fp32", "imgsz": 96, "num_classes": 7,
        "batch": 4, "device": "cpu", "params": 3_000_000, "macs": 8 * 10**9, "flops": 16 * 10**9,
        "memory_access": 5, "bytes_moved": 20, "activations": 12 * 10**6, "uncounted_ops": [],
        "latency_ms": latency, "images_per_s": measured([[80.0]], "images/s", "by hand"),
        "peak_memory_bytes": not_measured("byte", "not asked for"),
        "environment": {}, "started": "", "relative_error": None, "correct": None,
    }  # fmt: skip
    line = csv_row(BenchRow(**what))
    assert list(line)[:4] == [
        *("model", "infer_samples_per_sec", "infer_step_time", "infer_batch_size")
    ]
    wanted = {"infer_gmacs": 2.0, "infer_macts": 3.0, "param_count": 3.0, "infer_img_size": 96}
    assert {key: line[key] for key in wanted} == wanted
    assert line["infer_step_time"] == pytest.approx(50.0)
    assert (line["flops"], line["peak_memory_bytes"]) == (16 * 10**9, None)


def test_layers_by_name_of_what_can_be_counted():
    found = layers_of(["vovnet27_slim", "nonsuch", "vovnet27_slim"], 64, 10, 2)
    assert list(found) == ["vovnet27_slim"]
    first = found["vovnet27_slim"][0]
    assert first.macs == 2 * 3 * 64 * 9 * 32**2  # two images, 3 to 64 channels, stride 2


def test_bytes_are_those_of_the_numbers():
    """Moved are weights and maps alike, so a type of half the bytes moves half of them."""
    moved = {}
    for dtype in ("fp32", "bf16", "fp16", "int8"):
        [row] = count_models(["osa_5x43"], dtype=dtype)
        moved[dtype] = row["bytes_moved"]
    one = moved["int8"]
    assert moved == {"fp32": 4 * one, "bf16": 2 * one, "fp16": 2 * one, "int8": one}
