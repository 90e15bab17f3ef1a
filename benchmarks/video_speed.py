"""How much of its slowest part's speed `vovnet predict` keeps on a video.

    python benchmarks/video_speed.py [--weights vovdet_nano.voc] [--seconds 10] [--rounds 5]
        [--out benchmarks/results/video_speed.csv]

The video is 1080p H.264 at 25 frames a second, made here: windows that move over scikit-image's
photographs. In turns: PyAV decoding it, and nothing else; the network on as many prepared inputs;
`vovnet predict VIDEO --no-save --jsonl FILE`. Prints frames a second, medians of the rounds with
the least and the greatest, and processor milliseconds a frame, which other jobs on the machine
hardly change; "ratio" is predict's share of the slower of the two, the median of the rounds.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image
from skimage import data

from common import machine, write_rows
from vovnet.cli import main as vovnet
from vovnet.detect.options import Options
from vovnet.detect.run import AnyDetector
from vovnet.load import load_detector

WIDTH, HEIGHT, RATE = 1920, 1080, 25


class Pace(NamedTuple):
    """Frames a second, and processor milliseconds a frame."""

    rate: float
    ms: float


def write_clip(path: Path, seconds: float) -> int:
    """Windows that move over photographs; returns how many frames they are."""
    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.stereo_motorcycle()[0]]
    wide = [
        Image.fromarray(p).resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
        for p in pictures
    ]
    count = round(seconds * RATE)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(count):
            x, y = i * 7 % WIDTH, i * 4 % HEIGHT
            window = wide[i * len(wide) // count].crop((x, y, x + WIDTH, y + HEIGHT))
            file.mux(stream.encode(av.VideoFrame.from_image(window)))
        file.mux(stream.encode(None))
    return count


def decode(path: Path) -> None:
    """Every frame, as the decoder leaves it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            pass


def compute(detector: AnyDetector, count: int) -> None:
    """The network on one prepared input, so many times."""
    pixels = detector.input_spec.prepare(Image.fromarray(data.chelsea()))[0][None]
    for _ in range(count):
        detector.find(np.ascontiguousarray(pixels), Options())


def predict(path: Path, weights: str) -> None:
    """The whole way."""
    rows = path.with_suffix(".jsonl")
    command = ["predict", path, "--weights", weights, "--runtime", "onnxruntime"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = vovnet([*map(str, command), "--no-save", "--jsonl", str(rows), "--overwrite"])
    if code:
        raise SystemExit(code)


def timed(work: Callable[[], None], count: int) -> Pace:
    """How fast `work` does so many frames."""
    start, used = time.perf_counter(), time.process_time()
    work()
    spent, used = time.perf_counter() - start, time.process_time() - used
    return Pace(count / spent, 1e3 * used / count)


def main() -> None:
    """Measure in turns, and write a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="vovdet_nano.voc")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    detector = load_detector(given.weights, runtime="onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        count = write_clip(path, given.seconds)
        ways = {
            "decoder": lambda: decode(path),
            "network": lambda: compute(detector, count),
            "predict": lambda: predict(path, given.weights),
        }
        rounds = []
        for _ in range(given.rounds):
            rounds.append({way: timed(work, count) for way, work in ways.items()})
            print(
                {way: (round(p.rate, 1), round(p.ms, 1)) for way, p in rounds[-1].items()},
                flush=True,
            )
    row = {"weights": given.weights, "frames": count}
    for way in ways:
        rates = [one[way].rate for one in rounds]
        row[f"{way}_fps"] = round(statistics.median(rates), 1)
        row[f"{way}_fps_min"], row[f"{way}_fps_max"] = round(min(rates), 1), round(max(rates), 1)
        row[f"{way}_ms"] = round(statistics.median(one[way].ms for one in rounds), 1)
    ratios = [r["predict"].rate / min(r["decoder"].rate, r["network"].rate) for r in rounds]
    row["ratio"] = round(statistics.median(ratios), 2)
    write_rows(given.out, [row | machine()])


if __name__ == "__main__":
    main()
