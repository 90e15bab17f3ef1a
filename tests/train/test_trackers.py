"""MLflow and Weights & Biases get a run's rows, and a resumed run goes on with the same one."""

import pytest

from vovnet.train.trackers import MLflowSink, WandbSink

RECIPE = {"model": "vovdet_nano", "lr": 6e-3, "resolution": []}
ROWS = [{"epoch": epoch, "loss_box": 0.5 / epoch, "map_50": None} for epoch in (1, 2)]


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
