"""What other toolkits have people type, answered with the line to type here."""

import os
import re
import shlex
from collections.abc import Callable, Container, Sequence

from vovnet.errors import VovnetError

# Options of detection toolkits that are written KEY=VALUE.
_KEYS = frozenset(
    (
        *(
            "source",
            "data",
            "model",
            "weights",
            "imgsz",
            "epochs",
            "batch",
            "device",
            "conf",
            "iou",
        ),
        *("save", "name", "split", "val", "patience", "resume", "seed", "cache", "amp", "workers"),
        *("lr", "format", "project", "optimizer", "task", "mode", "pretrained", "freeze"),
        *("config", "out", "save"),
    )
)
_SAVED = ("txt", "csv", "coco", "crops", "parquet", "mot")
_SWITCHES = {
    *("save", "memory", "sync-bn", "pixels", "layers", "drop-unknown", "json", "overwrite"),
    *("force", "recursive", "resume", "keep-all", "track", *(f"save-{kind}" for kind in _SAVED)),
}
_NEGATABLE = {"save", "memory", "sync-bn", "pixels"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# What others call our options, and the recipe's values without an option of their own.
_OUR_WORDS = {
    "lr0": "lr",
    "learning-rate": "lr",
    "img": "imgsz",
    "img-size": "imgsz",
    "image-size": "imgsz",
    "batch-size": "batch",
    "conf-thres": "conf",
    "conf-threshold": "conf",
    "iou-thres": "iou",
    "iou-threshold": "iou",
    "max-dets": "max-det",
    "cfg": "config",
    "nosave": "no-save",
}
_OF_RECIPES = {
    "optimizer": "optimizer",
    "lrf": "final_lr",
    "momentum": "momentum",
    "weight-decay": "weight_decay",
    "fliplr": "flip",
    "flipud": "vertical_flip",
}
# What need not be said here, and whether a value goes with it.
_NEEDLESS = {
    "exist-ok": (False, "no folder is written into twice, the next free name is taken"),
    "project": (True, "runs lie below runs/ of the working folder"),
    "pretrained": (False, "--weights vovdet_nano.voc starts from what ships"),
    "verbose": (False, "what happens is told anyway"),
    "plots": (False, "the report is drawn anyway"),
}
_TASKS = ("detect", "segment", "yolo")  # which others write before the verb
_POSITIONAL = {("predict", "source"), ("val", "data"), ("doctor", "data")}


def refuse_habits(arguments: Sequence[str], options_of: Callable[[str], Container[str]]) -> None:
    """Raise `VovnetError` with the line to type if the arguments are written another toolkit's way:
    KEY=VALUE, a truth value behind a switch, two sides, a GPU by its number alone, other words.

    `options_of` gives a verb's options, such as "imgsz"; what a verb does not have is left out of
    the line, and named.
    """
    ours, translated = _in_our_words(list(arguments), options_of)
    mended, what = _mend(ours, options_of)
    what = translated + what
    if what:
        line = shlex.join(["vovnet", *mended])
        raise VovnetError(f"{'; '.join(dict.fromkeys(what))}. Type: {line}")


def _in_our_words(
    tokens: list[str], options_of: Callable[[str], Container[str]]
) -> tuple[list[str], list[str]]:
    """The arguments with what others call otherwise in our words, and what was translated."""
    what: list[str] = []
    if len(tokens) > 1 and tokens[0] in _TASKS and options_of(tokens[1]):
        what.append(f"the verb comes first, without {tokens[0]}")
        tokens = tokens[1:]
    if not tokens:
        return tokens, what
    verb, known = tokens[0], options_of(tokens[0])
    ours: list[str] = [verb]
    rest = iter(tokens[1:])
    for token in rest:
        key, equals, value = token.partition("=")
        option, word = token.startswith("--"), key.removeprefix("--").replace("_", "-")
        foreign = (option or (equals and not os.path.lexists(token))) and word not in known
        meant = _OUR_WORDS.get(word, "")
        if foreign and meant in known:
            what.append(f"{word} is called {meant}")
            ours.append(f"{'--' * option}{meant}{equals}{value}")
        elif foreign and verb == "train" and word in _OF_RECIPES:
            what.append(f"{word} is a recipe's {_OF_RECIPES[word]}")
            ours += [
                "--set",
                f"{_OF_RECIPES[word]}={(value if equals else next(rest, '')).lower()}",
            ]
        elif foreign and known and word in _NEEDLESS:
            with_value, why = _NEEDLESS[word]
            what.append(f"{word} is not needed: {why}")
            if with_value and not equals:
                next(rest, "")
        else:
            ours.append(token)
    return ours, what


def _mend(
    tokens: Sequence[str], options_of: Callable[[str], Container[str]]
) -> tuple[list[str], list[str]]:
    """The arguments as they are written here, and what was wrong with them."""
    mended: list[str] = []
    what: list[str] = []
    option = ""  # the last one, without what was given with =
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else ""
        key, equals, value = token.partition("=")
        if token.startswith("--"):
            option = key[2:]
            mended.append(
                f"{key}={_device(value, what)}" if key == "--device" and equals else token
            )
        elif before == "--device":
            mended.append(_device(token, what))
        elif option == "imgsz" and before != "--imgsz" and _is_side(token) and before.isdigit():
            what.append("--imgsz is one side, inputs are square")
            mended[-1] = str(max(int(token), int(before)))
        elif before[2:] in _SWITCHES and token.lower() in _TRUTH and not os.path.lexists(token):
            mended += _switch(mended.pop()[2:], _TRUTH[token.lower()], what)
        elif equals and key in _KEYS and _is_free(before, option) and not os.path.lexists(token):
            what.append("options are written --KEY VALUE, not KEY=VALUE")
            mended += _option(tokens[0], key, value, what, options_of(tokens[0]))
        else:
            mended.append(token)
    return mended, what


def _is_free(before: str, option: str) -> bool:
    """Whether what follows is no value of an option; --set takes any number of KEY=VALUE."""
    switch = before[2:].removeprefix("no-") in _SWITCHES or "=" in before
    return option != "set" and (switch or not before.startswith("--"))


def _is_side(token: str) -> bool:
    return token.isdigit() and not os.path.lexists(token)


def _option(verb: str, key: str, value: str, what: list[str], known: Container[str]) -> list[str]:
    if (verb, key) in _POSITIONAL:
        return [value]
    if key == "amp" and value.lower() in _TRUTH:
        return [] if _TRUTH[value.lower()] else ["--amp", "off"]
    if key not in known:
        what.append(f"{verb} has no {key}")
        return []
    if key == "resume" and verb != "predict" and value.lower() in _TRUTH:
        what.append("--resume takes a run's folder")
        return ["--resume", "RUN"] if _TRUTH[value.lower()] else []
    if key in _SWITCHES and value.lower() in _TRUTH:
        return _switch(key, _TRUTH[value.lower()], what)
    return [f"--{key}", _device(value, what) if key == "device" else value]


def _switch(name: str, on: bool, what: list[str]) -> list[str]:
    what.append(f"--{name} takes no value")
    if on:
        return [f"--{name}"]
    return [f"--no-{name}"] if name in _NEGATABLE else []


def _device(name: str, what: list[str]) -> str:
    if not re.fullmatch(r"\d+|gpu", name):
        return name
    mended = "cuda" if name == "gpu" else f"cuda:{name}"
    what.append(f"--device {name} is called {mended}")
    return mended
