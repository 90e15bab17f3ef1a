"""What a run says in a terminal, as it says it."""

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
