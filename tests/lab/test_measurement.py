import json

import pytest

from vovnet.lab.measurement import Measurement, mapped, measured, not_measured


def test_percentiles_are_those_of_all_samples_unclipped():
    repeats = [[float(v) for v in range(1, 51)], [float(v) for v in range(51, 101)]]
    found = measured(repeats, "ms", "counting")
    assert (found.n, found.unit) == (100, "ms")
    assert (found.value, found.p50) == (50.5, 50.5)
    assert (found.p5, found.p95, found.p99) == pytest.approx((5.95, 95.05, 99.01))
    outlier = measured([[1.0] * 99 + [1000.0]], "ms", "x")
    assert outlier.p99 > 10


@pytest.mark.parametrize(
    ("medians", "valid"),
    [
        ([100.0, 104.0, 102.0, 98.0, 101.0], True),
        ([100.0, 104.0, 102.0, 98.0, 900.0], True),  # one disturbed repeat
        ([100.0, 120.0, 140.0, 160.0, 180.0], False),  # a drift
        ([100.0, 119.0], False),  # too few to tell which one is right
        ([100.0, 108.0, 104.0], True),
        ([95.0, 100.0, 105.0], True),  # three: their range, at most 10 of 100
        ([94.9, 100.0, 105.0], False),
        ([90.0, 100.0, 110.0], False),
        ([90.0, 100.0, 100.0, 110.0], True),  # four: the middle half, 97.5 to 102.5
        ([50.0, 95.0, 100.0, 105.0, 150.0], True),  # 95 to 105
        ([50.0, 94.9, 100.0, 105.0, 150.0], False),
        ([100.0], False),  # nothing to compare with
        ([-100.0, -101.0], True),
    ],
)
def test_valid_if_the_repeats_agree(medians, valid):
    found = measured([[m, m, m] for m in medians], "ms", "x")
    assert found.valid is valid
    assert "10% of the median" in found.method


def test_value_or_reason():
    missing = not_measured("J", "no counter\n  here")
    assert (missing.value, missing.reason, missing.valid) == (None, "no counter here", False)
    assert missing.n == 0
    assert json.loads(json.dumps(missing.to_dict())).keys() == {
        *("value", "unit", "method", "n", "p5", "p50", "p95", "p99", "valid", "reason")
    }
    with pytest.raises(ValueError, match="either a value or the reason"):
        Measurement(None, "J", "x")
    with pytest.raises(ValueError, match="either a value or the reason"):
        Measurement(1.0, "J", "x", reason="why")
    for bad in ([], [[]], [[1.0, float("nan")]]):
        with pytest.raises(ValueError, match="finite"):
            measured([*bad, []], "J", "x")


def test_mapped_keeps_the_repeats():
    assert mapped([[1.0, 2.0], [4.0]], lambda s: 8 / s) == [[8.0, 4.0], [2.0]]
