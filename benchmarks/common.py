"""What several benchmarks need: lists over a VOC folder, the machine, rows as CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from vovnet.files import write_atomically
from vovnet.lab import environment


def derive_voc(root: Path, folder: Path, lists: Mapping[str, Sequence[str]]) -> Path:
    """A VOC data set in `folder` with the images of `root`, linked, and other lists of them."""
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    for part in ("Annotations", "JPEGImages"):
        link = folder / part
        link.unlink(missing_ok=True)
        link.symlink_to((root / part).resolve(), target_is_directory=True)
    for name, stems in lists.items():
        (sets / f"{name}.txt").write_text("\n".join([*stems, ""]))
    return folder


def voc_list(root: Path, split: str) -> list[str]:
    """The images of a VOC data set's list, in its order."""
    return (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def machine() -> dict[str, Any]:
    """Where and when something was measured."""
    found = environment()
    gpus = {"gpu": found["cuda"][0]["name"]} if found["cuda"] else {}
    return gpus | {
        "threads": torch.get_num_threads(),
        "cpu": found["cpu"]["model"],
        "instructions": found["cpu"]["capability"],
        "torch": found["versions"]["torch"],
        "date": str(date.today()),
    }


def claim(folder: Path, given: Mapping[str, Any]) -> None:
    """Make a folder for what is measured with the `given` values, or go on with the one there is;
    exits if that was begun with others, or nobody knows: its rows would be reported as these."""
    path = folder / "given.json"
    text = json.dumps(given, indent=1, default=str)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        write_atomically(path, text.encode())
    elif not path.exists() or path.read_text() != text:
        raise SystemExit(f"{folder}: begun with other values, see {path}; move it away")


def write_rows(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as CSV, with the columns of all of them in order of appearance; without a path
    they are printed."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path is None:
        print(text.getvalue(), end="")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())
