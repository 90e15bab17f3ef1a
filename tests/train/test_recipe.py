from pathlib import Path

import pytest
import yaml

from vovnet.errors import UnknownNameError, VovnetError
from vovnet.train.recipe import Recipe, changed, read_recipe, recipe_from_dict

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
BASE = {"model": "vovdet_nano", "data": ["a", "b@train"]}


def refusal(**values) -> str:
    with pytest.raises(VovnetError) as caught:
        recipe_from_dict(BASE | values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_project_load(path):
    values = read_recipe(path)
    recipe = recipe_from_dict(values)
    kept = recipe.to_dict()
    assert {key: kept[key] for key in values} == values


def test_round_trip_through_yaml():
    recipe = recipe_from_dict(
        BASE
        | {
            "resolution": [[0.25, 64], [0.5, 96]],
            "mosaic": [0.5, 0, 1],
            "amp": "off",
            "names": ["no", "1"],
            "val": "c@test",
            "imgsz": 128,
        }
    )
    text = yaml.safe_dump(recipe.to_dict())
    assert recipe_from_dict(yaml.safe_load(text)) == recipe
    assert recipe.resolution == ((0.25, 64), (0.5, 96))


def test_one_dataset_may_stand_alone():
    assert recipe_from_dict(BASE | {"data": "a@train"}).data == ("a@train",)


def test_a_models_own_defaults_give_way_to_what_is_said():
    values = {"model": "dsod300-vovnet27_slim", "data": ["a"]}
    plain, said = recipe_from_dict(values), recipe_from_dict(values | {"batch": 3})
    assert (plain.augment, plain.batch) == ("ssd", None)
    assert (said.augment, said.batch) == ("ssd", 3)


def test_yaml_1_1_reads_some_values_otherwise_than_meant():
    values = yaml.safe_load("lr: 6e-3\namp: off\nclip: 1e1")
    assert values == {"lr": "6e-3", "amp": False, "clip": "1e1"}
    recipe = recipe_from_dict(BASE | values)
    assert (recipe.lr, recipe.amp, recipe.clip) == (0.006, "off", 10.0)


def test_unknown_key():
    with pytest.raises(UnknownNameError, match=r"unknown recipe key 'epoch'\. Did you mean epochs"):
        recipe_from_dict(BASE | {"epoch": 3})
    with pytest.raises(UnknownNameError, match="recipe key '1'"):
        recipe_from_dict(BASE | {1: 3})


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        (["model"], "model not given"),
        (["data"], "data not given"),
        (["model", "data"], "model and"),
    ],
)
def test_missing_keys(left_out, words):
    with pytest.raises(VovnetError, match=words):
        recipe_from_dict({k: v for k, v in BASE.items() if k not in left_out})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", "many", "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", 3.0, "a whole number or null"),
        ("minutes", "all night", "a number or null"),
        ("milestones", [[0.5]], "a list of numbers"),
        ("lr", "fast", "a number"),
        ("lr", float("nan"), "a number"),
        ("lr", float("inf"), "a number"),
        ("model", ["vovdet_nano"], "text"),
        ("model", 3, "text"),
        ("data", 3, "a list of texts"),
        ("data", [3], "a list of texts"),
        ("names", "cat", "a list of texts"),
        ("names", [False], "a list of texts"),
        ("val", 3, "text or null"),
        ("imgsz", 64.0, "a whole number or null"),
        ("zoom", 1.0, "two numbers"),
        ("zoom", [1.0], "two numbers"),
        ("mosaic", 0.5, "three numbers"),
        ("resolution", [[0.5]], "side in pixels"),
        ("resolution", [0.5, 64], "side in pixels"),
        ("resolution", [[0.5, 64.5]], "side in pixels"),
        ("difficult", 1, "true or false"),
        ("flip", True, "a number"),
    ],
)
def test_wrong_types(key, value, words):
    message = refusal(**{key: value})
    assert message.startswith(f"recipe: {key} is ")
    assert words in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epochs", 0, "at least 1"),
        ("batch", -4, "at least 1"),
        ("imgsz", 0, "at least 1"),
        ("lr", 0, "above 0"),
        ("clip", -1.0, "at least 0"),
        ("final_lr", 1.5, "0..1"),
        ("warmup", -1, "at least 0"),
        ("weight_decay", -0.1, "at least 0"),
        ("ema_decay", 1.1, "0..1"),
        ("zoom", [0.0, 1.0], "above 0"),
        ("zoom", [1.5, 0.5], "rising"),
        ("mosaic", [1.5, 0.1, 0.8], "0..1"),
        ("mosaic", [0.5, -0.1, 0.8], "0..1"),
        ("flip", -0.5, "0..1"),
        ("vertical_flip", 2, "0..1"),
        ("val_every", -1, "at least 0"),
        ("workers", -1, "at least 0"),
        ("seed", -1, "2^63"),
        ("data", [], "data is empty"),
        ("names", ["a", "a"], "twice"),
        ("resolution", [[0.5, 96], [0.7, 64]], "both grow"),
        ("resolution", [[0.5, 64], [0.5, 96]], "both grow"),
        ("resolution", [[0.5, 64], [1.5, 96]], "both grow"),
        ("resolution", [[0.0, 64]], "both grow"),
        ("resolution", [[0.5, -64]], "both grow"),
        ("resolution", [[0.5, 100]], "multiple of 32"),
    ],
)
def test_values_out_of_range(key, value, words):
    message = refusal(**{key: value})
    assert message.startswith(f"recipe: {key} ")
    assert words in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("augment", "zom", "Did you mean zoom?"),
        ("optimizer", "muonn", "Did you mean muon?"),
        ("amp", "of", "Did you mean off?"),
        ("amp", True, "Known: auto, bf16, fp16, off"),
        ("optimizer", ["muon"], "unknown recipe optimizer"),
    ],
)
def test_words_of_a_closed_list(key, value, words):
    assert words in refusal(**{key: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 3, "minutes": 5.0}, "epochs and minutes are both given"),
        ({"batch": 6, "accumulate": 4}, "multiple of accumulate"),
        ({"schedule": "multistep"}, "needs milestones"),
        ({"milestones": [0.5]}, "belong to schedule multistep"),
        ({"schedule": "multistep", "milestones": [0.8, 0.5]}, "must grow"),
        ({"patience": 3, "val": "none"}, "patience needs evaluations; give val"),
        ({"patience": 3, "val_every": 0}, "leave val_every out"),
    ],
)
def test_values_that_do_not_go_together(values, words):
    assert words in refusal(**values)


def test_another_length_takes_the_place_of_the_old_one():
    recipe = recipe_from_dict(BASE | {"epochs": 4})
    assert recipe_from_dict(changed(recipe.to_dict(), {})) == recipe
    for length in ({"epochs": 7}, {"minutes": 2}):
        assert recipe_from_dict(changed(recipe.to_dict(), length)) == recipe_from_dict(
            BASE | length
        )
    with pytest.raises(VovnetError, match="epochs is 0"):
        recipe_from_dict(changed(recipe.to_dict(), {"epochs": 0}))


def test_resolution_grows_over_the_run_and_never_past_the_full_size():
    recipe = Recipe("m", ("a",), resolution=((0.2, 64), (0.5, 96)))
    shares = [tenth / 10 for tenth in range(10)]
    assert [recipe.size_at(share, 128) for share in shares] == [64] * 2 + [96] * 3 + [128] * 5
    assert {recipe.size_at(share, 64) for share in shares} == {64}


@pytest.mark.parametrize("key", ["mosaic", "mixup"])
def test_mixtures_between_two_shares_of_the_run(key):
    recipe = recipe_from_dict({"model": "m", "data": "a", key: [0.4, 0.1, 0.8]})
    probability = {"mosaic": recipe.mosaic_at, "mixup": recipe.mixup_at}[key]
    found = [probability(tenth / 10) for tenth in range(10)]
    assert found == [0.0] + [0.4] * 7 + [0.0] * 2


def test_unreadable_recipes(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "bad.yaml").write_text("a: [1\nb: 2")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9")
    (tmp_path / "objects.yaml").write_text("model: !!python/object/apply:os.getcwd []")
    cases = {
        "missing.yaml": "no such file",
        "list.yaml": "`key: value`",
        "empty.yaml": "`key: value`",
        "bad.yaml": "bad YAML",
        "latin.yaml": "UTF-8",
        "objects.yaml": "bad YAML",
        ".": "not a regular file",
    }
    for name, words in cases.items():
        with pytest.raises(VovnetError) as caught:
            read_recipe(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name))
        assert words in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ({"val": "x"}, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),  # ten times in a run of 20
        ({"val": "x", "val_every": 0}, [20]),
        ({"val": "x", "val_every": 6}, [6, 12, 18, 20]),
        ({"val": "none"}, []),
        ({"val": None}, []),
    ],
)
def test_epochs_that_are_evaluated(values, epochs):
    recipe = recipe_from_dict(BASE | {"epochs": 20} | values)
    shares = [(i / 20, (i + 1) / 20) for i in range(20)]
    due = [recipe.evaluates_after(epoch, *share) for epoch, share in enumerate(shares)]
    assert [epoch + 1 for epoch, is_due in enumerate(due) if is_due] == epochs


def test_a_run_of_few_epochs_is_evaluated_after_each():
    recipe = recipe_from_dict(BASE | {"epochs": 3, "val": "x"})
    shares = [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]
    assert all(recipe.evaluates_after(i, *share) for i, share in enumerate(shares))
