"""The verb tune."""

from pathlib import Path
from shlex import quote
from typing import Any

from vovnet.cli._folder import run_folder
from vovnet.cli._options import Json
from vovnet.cli._print import note, print_json, print_table
from vovnet.cli.training import RecipeOptions, recipe_of
from vovnet.errors import EXIT_OK, MissingExtraError, VovnetError

_USUAL = 20  # trials


def tune(
    data: str | None = None,
    /,
    *,
    options: RecipeOptions | None = None,
    config: Path | None = None,
    trials: int | None = None,
    device: str = "cpu",
    name: str = "tune",
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Search for the learning rate, input size and augmentation that suit a dataset.

    Trains --trials times for an equal share of --minutes, the usual recipe first, and ends early
    what falls behind. The best recipe is best.yaml in the folder; a longer training starts from it.

    Parameters
    ----------
    data
        A VOC, COCO or YOLO dataset, PATH or PATH@SPLIT.
    config
        A YAML recipe to search from; the other options win over it.
    trials
        How many trainings, 20 unless given; with --resume, how many with those done.
    device
        What to compute on: cpu, cuda or cuda:1.
    name
        Folder below runs/tune; the next free number is added if it exists.
    resume
        A folder of tune: go on with its search.
    """
    try:
        from vovnet.train.tune import load_search, plan, with_trials
        from vovnet.train.tune import tune as search_for
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise MissingExtraError("optuna", "tune") from None
    given = {k: v for k, v in vars(options or RecipeOptions()).items() if v is not None}
    if resume is not None:
        if given or data or config:
            raise VovnetError(
                "--resume takes the search's own recipe; give only --trials beside it"
            )
        search = load_search(resume)
        search = search if trials is None else with_trials(search, trials)
    else:
        minutes = given.pop("minutes", None)
        if minutes is None:
            raise VovnetError("tune needs --minutes, for all trials together")
        given |= {"data": [data]} if data else {}
        trials = _USUAL if trials is None else trials
        search = plan(recipe_of(given, config), trials, minutes, device=device, note=note)
    with run_folder("tune", name, resume) as folder:
        try:
            rows = search_for(search, folder, device=device, note=note)
        except KeyboardInterrupt:
            note(f"saved; go on with: vovnet tune --resume {folder}")
            raise
    _show(rows, folder, as_json)
    return EXIT_OK


def _show(rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), "trials": rows})
        return
    print_table(rows)
    print(folder, flush=True)
    note(f"next: vovnet train --config {quote(str(folder / 'best.yaml'))}")
