"""A run's rows for MLflow and Weights & Biases, each an extra of that name.

Where they go is what their own settings say (`MLFLOW_TRACKING_URI`, `WANDB_MODE`, ...). The id of
the run there is kept in the run's folder, so that a resumed run goes on with it.
"""

from pathlib import Path
from typing import Any
from uuid import uuid4

from vovnet.errors import MissingExtraError
from vovnet.files import write_atomically

_EXPERIMENT = "vovnet"


class MLflowSink:
    """Metrics for MLflow, over epochs, and the recipe as parameters."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        try:
            import mlflow
        except ImportError:
            raise MissingExtraError("mlflow", "mlflow") from None
        self.mlflow = mlflow
        kept = folder / "mlflow.txt"
        if kept.is_file():
            mlflow.start_run(run_id=kept.read_text().strip())
            return
        mlflow.set_experiment(_EXPERIMENT)
        run = mlflow.start_run(run_name=folder.name)
        mlflow.log_params(recipe)
        write_atomically(kept, run.info.run_id.encode())

    def write(self, row: dict[str, Any]) -> None:
        """Log the row's numbers at its epoch."""
        self.mlflow.log_metrics(_numbers(row), step=row["epoch"])

    def close(self) -> None:
        """End the run there."""
        self.mlflow.end_run()


class WandbSink:
    """Metrics for Weights & Biases, over epochs, and the recipe as configuration."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtraError("wandb", "wandb") from None
        kept = folder / "wandb.txt"
        if not kept.is_file():
            write_atomically(kept, uuid4().hex[:12].encode())
        self.run = wandb.init(
            project=_EXPERIMENT,
            name=folder.name,
            id=kept.read_text().strip(),
            resume="allow",
            config=recipe,
            dir=str(folder),
        )

    def write(self, row: dict[str, Any]) -> None:
        """Log the row's numbers at its epoch."""
        self.run.log(_numbers(row), step=row["epoch"])

    def close(self) -> None:
        """End the run there."""
        self.run.finish()


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and k != "epoch"}
