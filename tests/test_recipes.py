"""The recipes: each can be run, and those of published trainings have the published schedules."""

import runpy
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from vovnet.models import create_detector, create_model, list_detectors
from vovnet.models.cifar import SPECS
from vovnet.train.recipe import LENGTHS, Recipe, changed, read_recipe, recipe_from_dict

ROOT = Path(__file__).resolve().parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "recipe_table.py"))
PATHS = TOOL["recipe_paths"]()
BY_NAME = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


class Printed(NamedTuple):
    """A schedule as its source prints it; `drops` are iterations, or epochs in the CIFAR study."""

    length: int
    batch: int
    lr: float
    weight_decay: float
    drops: tuple[int, ...]
    gamma: float = 0.1


PRINTED = {
    "dsod300-*.voc0712": Printed(100_000, 128, 0.1, 5e-4, (20_000, 40_000, 60_000, 80_000)),
    "dsod300-*.coco": Printed(320_000, 128, 0.1, 5e-4, (80_000, 140_000, 200_000, 260_000)),
    "ssd300-*.voc0712": Printed(120_000, 24, 5e-4, 5e-5, (20_000, 40_000), 0.5),
    "pelee304-*.voc0712": Printed(120_000, 32, 5e-3, 5e-4, (80_000, 100_000)),
    "refinedet320-*.voc0712": Printed(120_000, 32, 1e-3, 1e-4, (80_000, 100_000)),
    "refinedet512-*.voc0712": Printed(180_000, 20, 1e-3, 1e-4, (130_000, 160_000)),
    "refinedet*.coco": Printed(400_000, 32, 1e-3, 5e-4, (280_000, 360_000)),
    "refinedet512-*.coco-batch20": Printed(540_000, 20, 1e-3, 5e-4, (400_000, 480_000)),
    "maskrcnn-*.coco": Printed(270_000, 16, 0.02, 1e-4, (210_000, 250_000)),
    "centermask-*.coco": Printed(270_000, 16, 0.01, 1e-4, (210_000, 250_000)),
    "centermask_lite-*.coco": Printed(360_000, 16, 0.01, 1e-4, (300_000, 340_000)),
    "*.cifar10": Printed(300, 64, 0.1, 1e-4, (150, 225)),
}
CIFAR_STEPS = 50_000 // 64  # of an epoch


@lru_cache
def recipe_of(path: Path) -> Recipe:
    return recipe_from_dict(read_recipe(path))


def printed_of(path: Path) -> Printed | None:
    return next((p for pattern, p in PRINTED.items() if fnmatchcase(path.stem, pattern)), None)


@lru_cache
def build(model: str) -> torch.nn.Module:
    """The recipe's model without its numbers."""
    with torch.device("meta"):
        if model in SPECS:
            return create_model(model)
        return create_detector(model, ("one", "two"))


@BY_NAME
def test_can_be_run(path):
    recipe = recipe_of(path)
    assert path.stem.rpartition(".")[0] == recipe.model
    assert sum(p.numel() for p in build(recipe.model).parameters()) > 1e5
    assert recipe.model in SPECS or recipe.model in list_detectors()
    if recipe.imgsz:
        build(recipe.model).input_spec.with_side(recipe.imgsz, recipe.model)


@BY_NAME
def test_holds_values_only(path):
    values = read_recipe(path)
    assert "names" not in values, "class names are the data's"
    flat = [x for v in values.values() for x in (v if isinstance(v, list) else [v])]
    texts = [text for text in flat if isinstance(text, str)]
    assert not [t for t in texts if t.startswith(("vovnet.", "torch.", "!"))]
    assert "!!" not in path.read_text()


@BY_NAME
def test_published_schedule(path):
    """The learning rate is the printed one before and after every printed drop."""
    printed, recipe = printed_of(path), recipe_of(path)
    if printed is None:
        assert path.stem.endswith("-short") or "../shared" in path.read_text()
        return
    unit = CIFAR_STEPS if recipe.epochs else 1
    length = (recipe.steps or recipe.epochs) * unit
    assert (length, recipe.batch) == (printed.length * unit, printed.batch)
    assert recipe.weight_decay == printed.weight_decay
    assert (recipe.clip, recipe.ema_decay, recipe.patience) == (0, 0, 0)

    def rate(step: int) -> float:
        return recipe.lr_at(step, length)

    assert rate(recipe.warmup) == printed.lr
    for number, drop in enumerate(printed.drops):
        before = printed.lr * printed.gamma**number
        assert rate(drop * unit - 1) == pytest.approx(before)
        assert rate(drop * unit) == pytest.approx(before * printed.gamma)
    assert rate(length - 1) == pytest.approx(printed.lr * printed.gamma ** len(printed.drops))


def test_every_published_schedule_is_used():
    unused = [p for p in PRINTED if not any(fnmatchcase(path.stem, p) for path in PATHS)]
    assert not unused


@BY_NAME
def test_header_says_where_it_comes_from(path):
    facts = TOOL["header_facts"](path)
    assert path.read_text().startswith("# ")
    assert (printed_of(path) is not None) == ({"Published", "Source"} == set(facts))


def test_short_recipes_cover_the_families():
    short = {p.stem.partition("-")[0].partition(".")[0] for p in PATHS if p.stem.endswith("-short")}
    families = {name.partition("-")[0] for name in list_detectors()}
    kin = {"dsod300_plain", "refinedet512", "fasterrcnn", "maskrcnn", "centermask", "vovdet_small"}
    assert short - set(SPECS) == families - kin
    for path in PATHS:
        recipe = recipe_of(path)
        if path.stem.endswith("-short"):
            assert (recipe.minutes or 0) <= 30
            assert (recipe.epochs or 0) <= 10


def test_readme_has_the_table():
    text = TOOL["README"].read_text()
    assert text == TOOL["readme"](text), "run python tools/recipe_table.py"


def test_a_given_length_replaces_the_recipes():
    values = {"model": "vovdet_nano", "data": ["x"], "minutes": 10, "batch": 8}
    for given in ({"epochs": 3}, {"steps": 3}, {"minutes": 3}):
        recipe = recipe_from_dict(changed(values, given))
        lengths = {key: getattr(recipe, key) for key in LENGTHS}
        assert {key: value for key, value in lengths.items() if value is not None} == given
    assert changed(values, {"batch": 4}) == values | {"batch": 4}
