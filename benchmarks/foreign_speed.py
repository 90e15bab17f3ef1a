"""What reading another project's outputs costs beside its network, layout by layout.

    python benchmarks/foreign_speed.py [--model ../shared/models/yolox_nano.onnx] [--threads 2]
        [--seconds 2] [--out FILE.csv]

For every layout a file speaks it: --model itself in its own, for the others the boxes that it
finds in the photograph (finished ones: its best 300), rewritten by tests/detect/test_layouts.py as
that layout has them, at its size and with its 80 classes. Resizing (Pillow's), the rest of
preparing (stack, normalise, the file's order) and decoding (boxes, scores, suppression) are timed
in turn with --model's network; the table gives their medians, and how the latter two compare
with its time: they should stay within a tenth.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import machine, write_rows
from vovnet.detect.description import Description
from vovnet.detect.foreign import ForeignDetector, feeds
from vovnet.detect.layouts import LAYOUTS, Outputs
from vovnet.detect.options import Options
from vovnet.detect.propose import propose
from vovnet.detect.sessions import open_onnxruntime
from vovnet.detect.suppress import best_found

BOUND = 0.10
_TESTS = Path(__file__).resolve().parents[1] / "tests" / "detect"


def speakers(size: tuple[int, int], classes: int) -> dict[str, Callable[..., Outputs]]:
    """The tests' writers of layouts, for pictures of that size."""
    sys.path.insert(0, str(_TESTS))
    import test_layouts

    test_layouts.HEIGHT, test_layouts.WIDTH = size
    test_layouts.NAMES = tuple(map(str, range(classes)))
    return test_layouts.SPEAKERS


def spoken(layout: str, detector: ForeignDetector, pixels: np.ndarray) -> Outputs:
    """What a file of that layout would give where the detector finds what it does."""
    decoded = detector.decode(detector.outputs(pixels))
    boxes, scores = decoded.boxes[0], decoded.scores[0]
    found = best_found(boxes, scores, Options(conf=0.0, iou=1.0))
    write = speakers(detector.input_spec.size, len(detector.names))[layout]
    return {name: np.asarray(x) for name, x in write(boxes, scores, found).items()}


def medians(works: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Milliseconds of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: float(np.median(values)) for name, values in times.items()}


def measure(layout: str, detector: ForeignDetector, picture: Image.Image, seconds: float):
    """The row of one layout; the network is the detector's own for all."""
    spec = detector.input_spec
    pixels = spec.prepare(picture)[0][None]
    outputs = spoken(layout, detector, pixels)
    values = {
        "input": {"height": spec.size[0], "width": spec.size[1]},
        "layout": layout,
        "names": list(detector.names),
    }
    reader = ForeignDetector.__new__(ForeignDetector)  # without a file: its outputs are at hand
    reader.__dict__ |= detector.__dict__
    reader.description, reader.path = Description.from_dict(values, layout), Path(layout)

    def prepare() -> Any:
        return feeds(detector.wants, spec, np.stack([pixels[0]]))

    fed = prepare()
    found = medians(
        {
            "network": lambda: detector.session.run(fed),
            "resize": lambda: spec.prepare(picture),
            "prepare": prepare,
            "decode": lambda: reader.chosen(outputs, Options()),
        },
        seconds,
    )
    share = (found["prepare"] + found["decode"]) / found["network"]
    return {
        "layout": layout,
        "objects": len(reader.chosen(outputs, Options())[0].scores),
        **{f"{name}_ms": round(value, 3) for name, value in found.items()},
        "share": round(share, 3),
        "within": share <= BOUND,
    }


def photograph(longest: int) -> Image.Image:
    """scikit-image's astronaut as a JPEG of that size would be decoded."""
    from skimage import data

    picture = Image.fromarray(data.astronaut())
    picture.thumbnail((longest, longest))
    return picture


def main() -> None:
    """Measure every layout; a line is said of those above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("../shared/models/yolox_nano.onnx"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each layout")
    parser.add_argument("--only", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--out", type=Path, help="a CSV file to write instead of printing")
    given = parser.parse_args()
    told = Description.from_dict(propose(given.model).description, str(given.model))
    session = open_onnxruntime(given.model, given.threads)
    detector = ForeignDetector(given.model, told, session, "onnxruntime", "fp32")
    picture = photograph(512)
    rows = [measure(layout, detector, picture, given.seconds) for layout in given.only]
    write_rows(given.out, [row | machine() | {"threads": given.threads} for row in rows])
    for row in rows:
        if not row["within"]:
            print(f"{row['layout']}: {row['share']:.0%} of the network's time", file=sys.stderr)


if __name__ == "__main__":
    main()
