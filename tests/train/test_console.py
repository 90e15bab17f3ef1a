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


def test_losses_speed_and_waiting_stand_behind_the_bar():
    report = EpochReport(epoch=2, size=224, images=64, seconds=4.0, waited=1.0)
    report.losses = {"class": 1.25, "box": 0.0625}
    assert console._terms(report) == "class 1.250 box 0.062 | 16 img/s, 25% waiting"


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
    assert last.endswith(" | 16 img/s, 0% waiting")
