"""A training run shown in a terminal: a progress bar per epoch and one line when it is done."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vovnet.train.loop import EpochReport
from vovnet.train.recipe import Recipe
from vovnet.train.run import run_training


def train_in_console(
    recipe: Recipe, folder: Path, *, resume: bool = False, device: str = "cpu"
) -> dict[str, Any]:
    """`run_training` with progress on stderr; returns the last line of results.csv."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", terms="")

        def on_step(report: EpochReport, steps: int) -> None:
            progress.update(
                task,
                description=f"epoch {report.epoch + 1}/{recipe.epochs} at {report.size}",
                completed=report.steps,
                total=steps,
                terms=_terms(report),
            )

        def on_row(row: dict[str, Any]) -> None:
            text = " ".join(f"{k} {v}" for k, v in row.items() if v is not None)
            console.print(text, soft_wrap=True, highlight=False)

        return run_training(
            recipe,
            folder,
            resume=resume,
            device=device,
            on_step=on_step,
            on_row=on_row,
            on_note=lambda line: console.print(line, soft_wrap=True, highlight=False),
        )


def _terms(report: EpochReport) -> str:
    losses = " ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
    return f"{losses} | {report.images_per_second:.0f} img/s, {report.wait_share:.0%} waiting"
