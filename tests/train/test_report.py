"""A line of results.csv, by hand."""

import os

import pytest

from vovnet.train.report import EpochReport, _resident_mb


def test_a_line_by_hand():
    report = EpochReport(epoch=4, size=224)
    report.lr = 0.0123456789
    report.add({"class": 1.0, "box": 0.5}, 8)
    report.add({"class": 2.0, "box": 0.25}, 4)
    report.add({"class": 2.00000049, "box": 0.0}, 4)
    report.seconds, report.waited = 3.0, 0.123456
    row = report.row({"map_50": 0.5})
    assert row.pop("memory_mb") == pytest.approx(_resident_mb(), rel=0.1)
    assert row == {
        "epoch": 5,
        "size": 224,
        "lr": 0.01234568,
        "loss_class": 1.666667,
        "loss_box": 0.25,
        "images_per_s": 5.33,
        "data_wait": 0.0412,
        "seconds": 3.0,
        "map_50": 0.5,
    }


def test_an_epoch_without_time_has_no_rates():
    report = EpochReport(epoch=0, size=64)
    assert (report.images_per_second, report.wait_share) == (0.0, 0.0)


def test_memory_is_whole_megabytes():
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    told = _resident_mb()
    assert isinstance(told, int)
    assert told == pytest.approx(kib * 1024 / 1e6, rel=0.05)
    assert os.sysconf("SC_PAGE_SIZE") > 0
