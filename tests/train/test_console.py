"""What a run says in a terminal, as it says it."""

import io
import re

import pytest

from vovnet.train import console
from vovnet.train.recipe import recipe_from_dict
from vovnet.train.report import EpochReport


def test_names_with_brackets_are_printed_as_they_are(monkeypatch, capsys, tmp_path):
    """Not taken for colours by rich, nor broken where a line is long."""
    note = f"data [red] in [/x]: {'long ' * 60}end"

    def run(recipe, folder, *, resume, device, on_step, on_row, on_note):
        on_note(note)
        on_row({"epoch": 1, "map_50": None, "loss_box": 0.5})
        return {"resume": resume, "device": device, "folder": folder}

    monkeypatch.setattr(console, "run_training", run)
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"]})
    told = console.train_in_console(recipe, tmp_path, resume=True, device="cpu")
    assert told == {"resume": True, "device": "cpu", "folder": tmp_path}
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [note, "epoch 1 loss_box 0.5"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report_at(share: float, **values) -> EpochReport:
    report = EpochReport(epoch=2, size=224, images=64, seconds=4.0, share=share, **values)
    report.losses = {"class": 1.25, "box": 0.0625}
    return report


def test_a_step_tells_losses_speed_the_time_left_and_the_best_so_far():
    clock = Clock()
    rows = [{"epoch": 1, "map_50": 0.25}, {"epoch": 2, "map_50": 0.125}, {"epoch": 3}]
    told = console.Told("map_50", rows, clock)
    losses, best = "class 1.250 box 0.062 | 16 img/s, 25% waiting", "best map_50 0.2500, epoch 1"
    assert told.step(report_at(0.2, waited=1.0)) == f"{losses} | {best}"
    clock.now = 60.0  # a tenth of the run in a minute: seven tenths are left
    assert told.step(report_at(0.3, waited=1.0)) == f"{losses} | 7 min left | {best}"


def test_an_epochs_figures_are_rounded_and_its_best_is_noted():
    told = console.Told("map_50", [])
    row = {"epoch": 4, "lr": 0.00123456, "seconds": 61.2345, "map_50": 0.123456, "map_75": None}
    words = "epoch 4 lr 0.001235 seconds 61.23 map_50 0.1235"
    assert told.row(row) == f"{words} | best map_50 0.1235, epoch 4"
    assert told.row({"epoch": 5, "map_50": 0.1}).endswith("best map_50 0.1235, epoch 4")


def test_a_line_a_minute_where_there_is_no_terminal(monkeypatch, capsys, tmp_path):
    clock = Clock()

    def run(recipe, folder, *, resume, device, on_step, on_row, on_note):
        for step in range(1, 150):
            clock.now += 1.0
            on_step(report_at(step / 200, steps=step), 200)
        return {}

    monkeypatch.setattr(console, "run_training", run)
    monkeypatch.setattr(console.Told.__init__, "__defaults__", (clock,))
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"]})
    console.train_in_console(recipe, tmp_path, resume=False, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [
        "epoch 3 at 224: step 60 of 200",
        "epoch 3 at 224: step 120 of 200",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_steps_of_an_epoch_are_shown_on_a_terminal_only(terminal, monkeypatch, tmp_path):
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    def run(recipe, folder, *, resume, device, on_step, on_row, on_note):
        report = EpochReport(epoch=2, size=224, steps=7, images=64, seconds=4.0)
        on_step(report, 29)
        return {}

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(console, "run_training", run)
    for key, value in {"TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(key, value)
    recipe = recipe_from_dict({"model": "vovdet_nano", "data": ["a"]})
    console.train_in_console(recipe, tmp_path, resume=False, device="cpu")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    if not terminal:
        assert shown == ""
        return
    last = shown.strip().splitlines()[-1]
    assert last.startswith("epoch 3 at 224 ")
    assert "7/29" in last
    assert "16 img/s, 0% waiting" in last
