"""The page: one self-contained HTML file, and its figures as PNG."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vovnet.charts.bars import BarChart, lay_out_bars
from vovnet.charts.cells import CellChart, lay_out_cells
from vovnet.charts.lines import lay_out_lines
from vovnet.charts.page import fill_page
from vovnet.charts.png import write_drawings
from vovnet.charts.shapes import Drawing
from vovnet.charts.svg import to_svg
from vovnet.data.record import Dataset
from vovnet.files import write_atomically
from vovnet.review.figures import Chart
from vovnet.review.matches import Judged
from vovnet.review.pictures import FALSE, HIT, IGNORED, MISSED
from vovnet.review.run import Run, read_run
from vovnet.review.sections import (
    Section,
    accuracy_sections,
    batch_section,
    best_confidence,
    training_section,
)
from vovnet.text import one_line

REPORT = "report.html"
_MARKS = (("right", HIT), ("false", FALSE), ("missed", MISSED), ("not counted", IGNORED))

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """All that a page shows. `missing` says what is not there and how to get it; `commands` are
    what to type next, each behind what it is for."""

    title: str
    lead: str
    facts: Facts
    sections: tuple[Section, ...]
    commands: Facts
    missing: tuple[str, ...] = ()
    recipe: Facts = ()

    def drawings(self) -> dict[str, Drawing]:
        """Every figure of the page by its key."""
        charts = (chart for section in self.sections for chart in section.charts)
        return {chart.key: lay_out(chart) for chart in charts}

    def render(self) -> str:
        """The page as HTML; all text is escaped, and its own policy forbids every request."""
        svgs = {key: to_svg(drawing) for key, drawing in self.drawings().items()}
        marks = [(name, "#" + bytes(colour).hex()) for name, colour in _MARKS]
        return fill_page("vovnet.review", svgs=svgs, marks=marks, **vars(self))

    def write(self, html: Path | None, png: Path | None = None) -> None:
        """Write the page, its figures as PNG into a folder, or both; raises `VovnetError` if that
        cannot be done."""
        if html is not None:
            write_atomically(html, self.render().encode("utf-8", "backslashreplace"))
        if png is not None:
            write_drawings(png, self.drawings())


def lay_out(chart: Chart) -> Drawing:
    """A figure as shapes."""
    if isinstance(chart, BarChart):
        return lay_out_bars(chart)
    return lay_out_cells(chart) if isinstance(chart, CellChart) else lay_out_lines(chart)


def page_of_run(folder: Path, truth: Dataset | None = None) -> Page:
    """The page of a run's folder, however far the run has come; `truth` is what it was judged by,
    where that is at hand. Raises `VovnetError` as `read_run` does."""
    run = read_run(folder, truth)
    training = training_section(run.rows)
    sections = [training] if training else []
    sections += [batch_section(run.batch)] if run.batch else []
    sections += accuracy_sections(run.judged) if run.judged else []
    data, model = run.recipe.get("data", "?"), run.recipe.get("model", "?")
    sources = ", ".join(map(str, data)) if isinstance(data, list) else str(data)
    facts = [("epochs", run.progress), *_run_facts(run), *_accuracy_facts(run.judged)]
    facts += [("weights judged", f"after epoch {run.epoch}")] if run.judged else []
    return Page(
        f"{run.folder.resolve().name}",
        one_line(f"{model} trained on {sources}"),
        facts,
        tuple(sections),
        _run_commands(run),
        run.missing,
        [(str(key), _plain(value)) for key, value in run.recipe.items() if value not in (None, [])],
    )


def page_of_found(beside: Judged, weights: str, facts: Facts) -> Page:
    """The page of an evaluation: `facts` say on what, and how it was computed."""
    best = best_confidence(beside).conf
    return Page(
        one_line(weights),
        "What this detector finds, and where it goes wrong.",
        [*_accuracy_facts(beside), *facts],
        tuple(accuracy_sections(beside)),
        [_predict(weights, best)],
    )


def _run_facts(run: Run) -> Facts:
    if not run.rows:
        return []
    minutes = sum(row.get("seconds") or 0 for row in run.rows) / 60
    speed = run.rows[-1].get("images_per_s")
    facts = [("trained for", f"{minutes:.1f} min")]
    return facts if speed is None else [*facts, ("speed", f"{speed:.0f} images/s")]


def _accuracy_facts(beside: Judged | None) -> Facts:
    if beside is None:
        return []
    best, coco = best_confidence(beside), beside.coco
    figures = (("mAP .50:.95", coco.map_50_95), ("mAP .50", coco.map_50))
    facts = [(name, f"{value:.3f}") for name, value in figures if value is not None]
    if best.conf is not None:
        facts.append(("best F1", f"{best.f1:.3f} at --conf {best.conf:.2f}"))
    return [*facts, ("judged by", f"{len(beside.records)} images")]


def _run_commands(run: Run) -> Facts:
    commands = []
    folder = shlex.quote(str(run.folder))
    if (run.folder / "state.safetensors").is_file():
        if run.unfinished:
            commands.append(("Go on with the run", f"vovnet train --resume {folder}"))
    elif not run.weights:
        config = shlex.quote(str(run.folder / "config.yaml"))
        commands.append(("Begin the run again", f"vovnet train --config {config}"))
    if run.weights:
        best = best_confidence(run.judged).conf if run.judged else None
        commands.append(_predict(str(run.folder), best))
    return commands


def _predict(weights: str, conf: float | None) -> tuple[str, str]:
    at = "" if conf is None else f" --conf {conf:.2f}"
    why = "Use it" if conf is None else "Use it, at the confidence that is best for F1"
    return why, f"vovnet predict IMAGE --weights {shlex.quote(weights)}{at}"


def _plain(value: Any) -> str:
    """A value of a recipe as it is read."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return ", ".join(map(_plain, value))
    return one_line(value)
