"""A training run shown on stderr: a progress bar in a terminal, else a line a minute, and one line
for every epoch that is done."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vovnet.distributed import is_main
from vovnet.text import duration
from vovnet.train.recipe import Recipe
from vovnet.train.report import EpochReport
from vovnet.train.run import run_training
from vovnet.train.sinks import CsvSink

_BETWEEN_LINES = 60.0  # seconds, where there is no terminal


def train_in_console(recipe: Recipe, folder: Path, *, resume: bool, device: str) -> dict[str, Any]:
    """`run_training` with progress on stderr; returns the last line of results.csv.

    Of several processes only the first one speaks.
    """
    console = Console(file=sys.stderr, quiet=not is_main())
    shown = console.is_terminal and is_main()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
    )

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("starting", told="")
        told = Told(recipe.metric, CsvSink(folder / "results.csv", keep=resume).rows)

        def on_step(report: EpochReport, steps: int) -> None:
            if shown:
                where = f"epoch {report.epoch + 1} at {report.size}"
                text = told.step(report)
                progress.update(
                    task, description=where, completed=report.steps, total=steps, told=text
                )
            elif told.is_due():
                where = f"epoch {report.epoch + 1} at {report.size}: step {report.steps} of {steps}"
                say(f"{where} | {told.step(report)}")

        return run_training(
            recipe,
            folder,
            resume=resume,
            device=device,
            on_step=on_step,
            on_row=lambda row: say(told.row(row)),
            on_note=say,
        )


class Told:
    """What there is to tell of a run on its way: losses, speed, the time left, the best so far.

    `rows` are those that the run has already; times are of this process, evaluations included.
    """

    def __init__(
        self,
        metric: str,
        rows: list[dict[str, Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metric = metric
        self.clock = clock
        self.best: tuple[float, int] | None = None  # the figure, and its epoch
        for row in rows:
            self._note_best(row)
        self.line_at = clock()
        self.first: tuple[float, float] | None = None  # clock and share of the run, one step in

    def is_due(self) -> bool:
        """Whether it is time for a line, where there is no terminal: one a minute."""
        if self.clock() < self.line_at + _BETWEEN_LINES:
            return False
        self.line_at = self.clock()
        return True

    def step(self, report: EpochReport) -> str:
        """An epoch as far as it has come."""
        losses = " ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
        speed = f"{report.images_per_second:.0f} img/s, {report.wait_share:.0%} waiting"
        return " | ".join(filter(None, (losses, speed, self._time_left(report), self._best())))

    def row(self, row: dict[str, Any]) -> str:
        """An epoch that is done, its figures rounded."""
        self._note_best(row)
        figures = " ".join(f"{k} {_rounded(v)}" for k, v in row.items() if v is not None)
        return " | ".join(filter(None, (figures, self._best())))

    def _time_left(self, report: EpochReport) -> str:
        now, share = self.clock(), report.share
        self.first = self.first or (now, share)
        began, share_then = self.first
        if share <= share_then:
            return ""
        return f"{duration((now - began) / (share - share_then) * (1 - share))} left"

    def _note_best(self, row: dict[str, Any]) -> None:
        score = row.get(self.metric)
        if score is not None and (self.best is None or score > self.best[0]):
            self.best = (score, row["epoch"])

    def _best(self) -> str:
        return f"best {self.metric} {self.best[0]:.4f}, epoch {self.best[1]}" if self.best else ""


def _rounded(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
