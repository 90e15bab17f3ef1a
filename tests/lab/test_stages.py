import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from vovnet.lab import stages
from vovnet.lab.latency import LEAST_CALLS
from vovnet.lab.stages import STAGES, EndToEnd, by_stage, photograph


@pytest.mark.parametrize("there", [True, False])
def test_a_photograph_of_512_pixels_or_waves_in_its_place(there, monkeypatch):
    monkeypatch.setattr(stages, "find_spec", find_spec if there else lambda name: None)
    jpeg, what = photograph()
    image = Image.open(io.BytesIO(jpeg))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (512, 512))
    assert what == ("astronaut of scikit-image" if there else "drawn waves") + ", 512×512 JPEG"
    pixels = np.asarray(image, float)
    assert pixels.mean() == pytest.approx(127 if not there else pixels.mean(), abs=12)
    assert (pixels.std((0, 1)) > 40).all()  # decoding has work to do in every channel
    assert len(jpeg) > 20_000
    again = io.BytesIO()
    image.save(again, "JPEG", quality=92)
    assert image.quantization == Image.open(again).quantization


def test_a_window_is_at_least_so_many_runs_and_the_first_does_not_count(monkeypatch):
    runs = []

    class Counted(EndToEnd):
        def __init__(self) -> None:
            """Of nothing: only how often it runs is looked at."""

        def run(self) -> tuple[float, ...]:
            runs.append(len(runs))
            return (float(len(runs)),)

    assert Counted().window(0.0) == [(float(i + 2),) for i in range(LEAST_CALLS)]
    assert len(runs) == LEAST_CALLS + 1
    clock = iter(range(1000))  # a second passes whenever it is looked at
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))
    assert len(Counted().window(20.0)) == LEAST_CALLS + 20 - 1


def test_stages_are_told_in_milliseconds_window_by_window():
    seconds = [[tuple(range(len(STAGES))), tuple(range(1, len(STAGES) + 1))], [(0.5,) * 5]]
    told = by_stage(seconds)
    assert list(told) == list(STAGES)
    for place, stage in enumerate(STAGES):
        assert told[stage] == [[place * 1000, place * 1000 + 1000], [500]]
