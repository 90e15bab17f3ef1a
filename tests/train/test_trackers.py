"""MLflow and Weights & Biases get a run's rows, and a resumed run goes on with the same one."""

import pytest

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.train.trackers import MLflowSink, Tracker, WandbSink

RECIPE = {"model": "vovdet_nano", "lr": 6e-3, "resolution": []}
ROWS = [{"epoch": epoch, "loss_box": 0.5 / epoch, "map_50": None} for epoch in (1, 2)]


class Leaving:
    """A service that takes so many rows, and fails from then on."""

    def __init__(self, takes: int) -> None:
        self.left = takes
        self.calls = 0

    def write(self, row: dict[str, object]) -> None:
        self.calls += 1
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("refused\nby 127.0.0.1")

    def close(self) -> None:
        self.write({})


def test_a_service_that_goes_away_ends_no_training():
    notes: list[str] = []
    sink = Leaving(1)
    tracker = Tracker("mlflow", lambda: sink, notes.append)
    for row in (*ROWS, ROWS[1]):
        tracker.write(row)
    tracker.close()
    assert sink.calls == 2
    [line] = notes
    assert line.startswith("mlflow: takes no more rows (refused\\nby 127.0.0.1); the run goes on")
    Tracker("wandb", lambda: Leaving(0), notes.append).close()
    assert notes[1].startswith("wandb: takes no more rows (refused")


@pytest.mark.parametrize("error", [ConnectionError("refused"), MissingExtraError("x", "wandb")])
def test_a_service_that_cannot_be_reached_refuses_the_start(error):
    def begin() -> Leaving:
        raise error

    told = str(error) if isinstance(error, VovnetError) else "wandb: takes no run (refused); check"
    with pytest.raises(VovnetError) as caught:
        Tracker("wandb", begin, print)
    assert str(caught.value).startswith(told)


@pytest.mark.slow  # the packages alone take seconds to import
@pytest.mark.filterwarnings("default")
def test_mlflow_gets_every_number(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra is not installed")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    for row in ROWS:  # stopped after the first
        sink = MLflowSink(tmp_path, RECIPE)
        sink.write(row)
        sink.close()
    run = mlflow.get_run((tmp_path / "mlflow.txt").read_text())
    assert run.data.params["lr"] == "0.006"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss_box")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert "map_50" not in run.data.metrics


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_gets_every_number(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for row in ROWS:
        sink = WandbSink(tmp_path, RECIPE)
        sink.write(row)
        sink.close()
    name = (tmp_path / "wandb.txt").read_text()
    written = list((tmp_path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert written
    assert all(b"loss_box" in file.read_bytes() for file in written)
