"""Average the weights of a run with those that it started from (WiSE-FT, arXiv 2109.01903).

python tools/average_weights.py RUN OTHER --share 0.9 --data DATA@SPLIT ... --out FOLDER

FOLDER becomes a run's folder to publish from. A mixture of both often does better on pictures that
resemble neither training's than the newer weights alone, at little cost on those that do. A mixture
of two networks' statistics is no network's: with --data batch norms are given those of training
images anew (SWA, arXiv 1803.05407 section 3.2).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from vovnet.data.open import open_dataset, parse_source
from vovnet.images import open_image
from vovnet.models.detector import Detector
from vovnet.models.weights import load_detector, load_tensors, save_detector
from vovnet.streams import stream


def prepared(detector: Detector, data: list[str], count: int, batch: int = 32) -> Iterator[Tensor]:
    """Batches of `count` images at the most, drawn from the data sets, as the network sees them."""
    sources = map(parse_source, data)
    sets = [open_dataset(path, split, detector.names, drop_unknown=True) for path, split in sources]
    records = [record for one in sets for record in one.records]
    chosen = stream(0, "statistics").permutation(len(records))[:count]
    batch = min(batch, len(chosen))
    for start in range(0, len(chosen) - batch + 1, batch):  # a smaller last one would weigh as much
        paths = [records[i].path for i in chosen[start : start + batch]]
        images = [open_image(path, shrink_to=max(detector.input_spec.size))[0] for path in paths]
        pixels = np.stack([detector.input_spec.prepare(image)[0] for image in images])
        yield detector.normalize(torch.from_numpy(pixels))


def estimate_statistics(detector: Detector, data: list[str], count: int) -> None:
    """Give the batch norms the mean statistics of training images."""
    update_bn(prepared(detector, data, count), detector.network)
    detector.eval()


def average(
    run: Path, other: str, share: float, out: Path, data: list[str], count: int = 2048
) -> None:
    """Write `share` of the run's averaged weights plus the rest of `other`'s."""
    last = run / "weights" / "last.safetensors"
    facts = load_tensors(last)[1]
    detector = load_detector(last)
    theirs = load_detector(other).network.state_dict()
    own = detector.network.state_dict()
    mixed = {
        key: value.lerp(theirs[key], 1 - share) if value.is_floating_point() else value
        for key, value in own.items()
    }
    detector.network.load_state_dict(mixed)
    facts = {key: facts[key] for key in ("recipe", "epoch", "data_names")}
    averaged = {"share": share, "with": other}
    if data:
        estimate_statistics(detector, data, count)
        averaged |= {"statistics": data, "images": count}
    save_detector(out / "weights" / "last.safetensors", detector, **facts, averaged=averaged)


def main() -> None:
    """Parse and average."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", help="shipped name or file")
    parser.add_argument("--share", type=float, required=True, help="of the run, 0..1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=[], metavar="DATA@SPLIT")
    parser.add_argument("--images", type=int, default=2048, help="to estimate statistics on")
    given = parser.parse_args()
    average(given.run, given.other, given.share, given.out, given.data, given.images)


if __name__ == "__main__":
    main()
