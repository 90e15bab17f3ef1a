"""A training run shown in a terminal: a progress bar per epoch and one line when it is done."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vovnet.distributed import is_main
from vovnet.train.recipe import Recipe
from vovnet.train.report import EpochReport
from vovnet.train.run import run_training


def train_in_console(recipe: Recipe, folder: Path, *, resume: bool, device: str) -> dict[str, Any]:
    """`run_training` with progress on stderr; returns the last line of results.csv.

    Of several processes only the first one speaks.
    """
    console = Console(file=sys.stderr, quiet=not is_main())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"),
    )
    shown = console.is_terminal and is_main()
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task("starting", terms="")

        def on_step(report: EpochReport, steps: int) -> None:
            progress.update(
                task,
                description=f"epoch {report.epoch + 1} at {report.size}",
                completed=report.steps,
                total=steps,
                terms=_terms(report),
            )

        def say(text: str) -> None:
            console.print(text, soft_wrap=True, highlight=False, markup=False)

        return run_training(
            recipe,
            folder,
            resume=resume,
            device=device,
            on_step=on_step,
            on_row=lambda row: say(" ".join(f"{k} {v}" for k, v in row.items() if v is not None)),
            on_note=say,
        )


def _terms(report: EpochReport) -> str:
    losses = " ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
    return f"{losses} | {report.images_per_second:.0f} img/s, {report.wait_share:.0%} waiting"
