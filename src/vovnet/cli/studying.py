"""The verb study: the paper's experiments that are no detectors."""

from pathlib import Path
from typing import Any

from cyclopts import App

from vovnet.cli._folder import run_folder
from vovnet.cli._options import Json
from vovnet.cli._print import note, print_json
from vovnet.errors import EXIT_OK, VovnetError

study = App(name="study", help="Run an experiment of the paper.")


@study.command
def cifar(
    *,
    config: Path | None = None,
    data: str | None = None,
    epochs: int | None = None,
    device: str = "cpu",
    seed: int | None = None,
    name: str | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Train a network of the CIFAR-10 study (section 3.2) and measure its accuracy.

    Parameters
    ----------
    config
        A YAML recipe, such as recipes/osa_5x43.cifar10.yaml; the other options win over it.
    data
        The folder cifar-10-batches-py, as it is published.
    epochs
        Passes over the training images.
    device
        What to compute on: cpu, cuda or cuda:1.
    name
        Folder below runs/study; the next free number is added if it exists.
    resume
        A run's folder: go on after its last whole epoch. Only --epochs may be changed.
    """
    from vovnet.study.cifar import train_cifar
    from vovnet.train.checkpoint import check_resumable
    from vovnet.train.recipe import changed, read_recipe, recipe_from_dict

    given = {"data": data, "epochs": epochs, "seed": seed}
    given = {key: value for key, value in given.items() if value is not None}
    if resume is not None:
        if config or name or set(given) - {"epochs"}:
            raise VovnetError("--resume takes the run's own recipe; only --epochs may be changed")
        check_resumable(resume, "study cifar")
        config = resume / "config.yaml"
    elif config is None:
        raise VovnetError("give a recipe with --config, or a run to go on with by --resume")
    recipe = recipe_from_dict(changed(read_recipe(config), given))
    with run_folder("study", name or recipe.model, resume) as folder:
        row = train_cifar(recipe, folder, resume=resume is not None, device=device, on_row=_tell)
    if as_json:
        print_json({"folder": str(folder), **row})
    else:
        print(folder)
    return EXIT_OK


def _tell(row: dict[str, Any]) -> None:
    note(" ".join(f"{key} {value}" for key, value in row.items() if value is not None))
