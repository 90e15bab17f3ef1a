"""Where a run's rows go: results.csv always, TensorBoard when asked."""

import csv
import io
from pathlib import Path
from typing import Any, Protocol

from vovnet.errors import MissingExtraError
from vovnet.files import write_atomically
from vovnet.review.results import read_results


class Sink(Protocol):
    """Takes one row an epoch; `close` when the run is over."""

    def write(self, row: dict[str, Any]) -> None:
        """Take in the row of an epoch."""

    def close(self) -> None:
        """Let go of what is open."""


class CsvSink:
    """results.csv, rewritten whole and atomically; `rows` are all of the run so far."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if keep and path.is_file():
            self.rows = read_results(path)

    def write(self, row: dict[str, Any]) -> None:
        """Append an epoch's row, dropping rows of epochs that are being done again."""
        self.rows = [r for r in self.rows if r["epoch"] < row["epoch"]]
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())

    def close(self) -> None:
        """Nothing stays open between two rows."""


class TensorBoardSink:
    """Event files for TensorBoard, one scalar per number of a row, over epochs."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self.writer = SummaryWriter(str(folder))

    def write(self, row: dict[str, Any]) -> None:
        """Add the row's numbers at its epoch."""
        for key, value in row.items():
            if isinstance(value, int | float) and key != "epoch":
                self.writer.add_scalar(key, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """End the event file."""
        self.writer.close()
