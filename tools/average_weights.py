"""Average the weights of a run with those that it started from (WiSE-FT, arXiv 2109.01903).

python tools/average_weights.py RUN OTHER --share 0.9 --out FOLDER

FOLDER becomes a run's folder to publish from. A mixture of both often does better on pictures that
resemble neither training's than the newer weights alone, at little cost on those that do.
"""

import argparse
from pathlib import Path

from vovnet.models.weights import load_detector, load_tensors, save_detector


def average(run: Path, other: str, share: float, out: Path) -> None:
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
    save_detector(out / "weights" / "last.safetensors", detector, **facts, averaged=averaged)


def main() -> None:
    """Parse and average."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other", help="shipped name or file")
    parser.add_argument("--share", type=float, required=True, help="of the run, 0..1")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    average(given.run, given.other, given.share, given.out)


if __name__ == "__main__":
    main()
