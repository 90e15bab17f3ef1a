"""The data of a run: opened, counted, and kept apart from those that judge it."""

from dataclasses import replace
from pathlib import Path

from vovnet.data.census import take_census
from vovnet.data.finding import finding_lines
from vovnet.data.names import merge_datasets
from vovnet.data.open import open_dataset, parse_source, validation_split
from vovnet.data.overlap import shared_images
from vovnet.data.placing import View
from vovnet.data.record import Dataset
from vovnet.data.unlabelled import open_unlabelled
from vovnet.distributed import broadcast_object, is_main
from vovnet.errors import DataError
from vovnet.input_spec import InputSpec
from vovnet.train.recipe import NO_VALIDATION, Recipe


def open_training_data(recipe: Recipe) -> Dataset:
    """The recipe's datasets as one, with the pictures that a teacher alone tells of. The first
    one's class names rule, unless the recipe names them; objects of other classes in the later ones
    are left out."""
    names = recipe.names or None
    datasets: list[Dataset] = []
    for source in recipe.data:
        path, split = parse_source(source)
        datasets.append(open_dataset(path, split, names, drop_unknown=names is not None))
        names = datasets[0].names
    datasets += [open_unlabelled(Path(folder), datasets[0].names) for folder in recipe.unlabelled]
    return merge_datasets(datasets) if len(datasets) > 1 else datasets[0]


def data_notes(dataset: Dataset, spec: InputSpec, difficult: bool) -> list[str]:
    """What was found wrong with the data, and what there is to learn in them at that input.

    Raises `DataError` if there is nothing.
    """
    census = take_census(dataset, View(spec.size, spec.fit == "warp"), difficult)
    census.check()
    return [*finding_lines(dataset.findings), *census.lines()]


def validation_data(
    recipe: Recipe, names: tuple[str, ...], learned: Dataset
) -> tuple[Recipe, Dataset | None, list[str]]:
    """The recipe that says what is validated on, these data or None, and what is to be told.

    Where the recipe says nothing, it is the validation split of its first data set, if it has one
    that shares no image with those to train on. Raises `DataError` if the data that it names share
    images with them, unless `allow_overlap` is set.
    """
    if recipe.val == NO_VALIDATION:
        return recipe, None, []
    given = recipe.val or _own_validation(recipe)
    if given is None:
        why = "nothing to validate on: the data have no such split; give --val"
        return replace(recipe, val=NO_VALIDATION), None, [why]
    path, split = parse_source(given)
    truth = open_dataset(path, split, names, purpose="val", drop_unknown=True)
    # One process reads the files; the others would read the same.
    found = shared_images(learned, truth) if is_main() and not recipe.allow_overlap else ()
    shared = broadcast_object(found)
    count = f"{len(shared)} of the {len(truth)} images of {given} are among those to train on"
    if shared and recipe.val:
        raise DataError(
            f"--val: {count} ({shared[0]}); give other images, or --allow-overlap to judge by them "
            "all the same"
        )
    if shared:
        why = f"not validated: {count}; give --val"
        return replace(recipe, val=NO_VALIDATION), None, [why]
    told = [f"validation: {line}" for line in finding_lines(truth.findings)]
    return replace(recipe, val=given), truth, [f"validated on {given}: {len(truth)} images", *told]


def _own_validation(recipe: Recipe) -> str | None:
    """The validation split of the first data set, if it has one."""
    path, split = parse_source(recipe.data[0])
    found = validation_split(path, split)
    return f"{path}@{found}" if found else None
