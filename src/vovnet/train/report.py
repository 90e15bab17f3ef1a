"""What an epoch did, as it goes and as a line of results.csv."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class EpochReport:
    """What one epoch did. `losses` are means over its steps; times are seconds."""

    epoch: int
    size: int
    steps: int = 0
    images: int = 0
    lr: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0  # for data
    share: float = 0.0  # of the whole run that is done

    @property
    def images_per_second(self) -> float:
        """Training images per second, waiting included."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the epoch spent waiting for data."""
        return self.waited / self.seconds if self.seconds else 0.0

    def add(self, losses: dict[str, float], images: int) -> None:
        """Fold one step in."""
        self.steps += 1
        self.images += images
        for key, value in losses.items():
            mean = self.losses.get(key, 0.0)
            self.losses[key] = mean + (value - mean) / self.steps

    def row(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """One line of results.csv."""
        return {
            "epoch": self.epoch + 1,
            "size": self.size,
            "lr": round(self.lr, 8),
            **{f"loss_{k}": round(v, 6) for k, v in self.losses.items()},
            "images_per_s": round(self.images_per_second, 2),
            "data_wait": round(self.wait_share, 4),
            "seconds": round(self.seconds, 2),
            "memory_mb": _resident_mb(),
            **metrics,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the state of a run that stops in the middle of an epoch."""
        return asdict(self)


def _resident_mb() -> int | None:
    """Memory that this process holds now, in MB, where the system tells (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
