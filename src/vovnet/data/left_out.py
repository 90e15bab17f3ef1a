"""What a folder holds beside pictures, counted by kind."""

import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vovnet.images import is_picture

_TYPES = mimetypes.MimeTypes()  # Python's own table: the same kinds on every machine
for _type, _suffixes in {
    "video/x": (".mkv", ".flv", ".wmv", ".m4v", ".mts", ".m2ts", ".3gp"),
    "image/x": (".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".exr"),
    "text/x": (".md", ".json", ".yaml", ".yml", ".log"),
}.items():
    for _suffix in _suffixes:
        _TYPES.add_type(_type, _suffix)
_WORDS = {
    "picture": ("picture of a format not read here", "pictures of a format not read here"),
    "video": ("video", "videos"),
    "audio": ("audio file", "audio files"),
    "text": ("text file", "text files"),
    "other": ("other file", "other files"),
    "hidden": ("hidden picture", "hidden pictures"),
    "folder": ("folder", "folders"),
}


class LeftOut(NamedTuple):
    """How many of one kind (a key of `_WORDS`), and their suffixes, sorted."""

    kind: str
    count: int
    suffixes: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = _WORDS[self.kind][self.count != 1]
        return f"{self.count} {words}" + (f" ({', '.join(self.suffixes)})" * bool(self.suffixes))


def count_left_out(paths: Iterable[Path]) -> list[LeftOut]:
    """The files and folders that were left out, by kind; hidden ones only where a picture is."""
    kinds: dict[str, list[Path]] = {kind: [] for kind in _WORDS}
    for path in paths:
        kind = _kind(path)
        if kind is not None:
            kinds[kind].append(path)
    return [
        LeftOut(kind, len(same), () if kind == "folder" else _suffixes_of(same))
        for kind, same in kinds.items()
        if same
    ]


def _kind(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden" if is_picture(path) else None
    if os.path.isdir(path):
        return "folder"
    kind = (_TYPES.guess_type(f"x{path.suffix.lower()}")[0] or "").partition("/")[0]
    kind = "picture" if kind == "image" else kind
    return kind if kind in _WORDS else "other"


def _suffixes_of(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted({path.suffix.lower() for path in paths} - {""}))
