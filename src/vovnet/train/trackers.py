"""A run's rows for MLflow and Weights & Biases, each an extra of that name.

Where they go is what their own settings say (`MLFLOW_TRACKING_URI`, `WANDB_MODE`, ...). The id of
the run there is kept in the run's folder, so that a resumed run goes on with it. A service that
cannot be reached refuses a start; one that goes away later ends no training.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.files import write_atomically
from vovnet.text import one_line
from vovnet.train.sinks import Sink

_EXPERIMENT = "vovnet"


class Tracker:
    """A sink that the run goes on without once it fails, which `tell` hears of."""

    def __init__(self, name: str, begin: Callable[[], Sink], tell: Callable[[str], None]) -> None:
        self.name = name
        self.tell = tell
        try:
            self.sink: Sink | None = begin()
        except VovnetError:
            raise
        except Exception as error:  # each service has its own kinds
            raise VovnetError(
                f"{name}: takes no run ({one_line(error)}); check its settings, or leave it out"
            ) from None

    def write(self, row: dict[str, Any]) -> None:
        """Hand the row on, if the sink still takes rows."""
        self._try(lambda sink: sink.write(row))

    def close(self) -> None:
        """End the run there, if the sink still takes rows."""
        self._try(lambda sink: sink.close())

    def _try(self, step: Callable[[Sink], None]) -> None:
        if self.sink is None:
            return
        try:
            step(self.sink)
        except Exception as error:  # each service has its own kinds
            self.sink = None
            self.tell(
                f"{self.name}: takes no more rows ({one_line(error)}); the run goes on without it, "
                "results.csv has them all"
            )


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
