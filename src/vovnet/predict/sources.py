"""Which image files a list of files, folders and globs means."""

import glob
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vovnet.data.left_out import LeftOut, count_left_out
from vovnet.errors import ImageError, MissingExtraError, UnknownNameError, VovnetError
from vovnet.images import is_picture

_SKIMAGE = "skimage:"


class Sources(NamedTuple):
    """Image files in order, without repeats; sources that give none, with the reason; and what
    folders and patterns hold beside pictures, by source."""

    files: list[Path]
    faults: dict[str, VovnetError]
    left_out: dict[str, list[LeftOut]]


def expand_sources(sources: Iterable[str]) -> list[Path]:
    """The files of `find_sources`; raises the first fault."""
    found = find_sources(sources)
    for fault in found.faults.values():
        raise fault
    return found.files


def find_sources(sources: Iterable[str]) -> Sources:
    """The image files that are meant; a bad source hinders no other.

    A folder gives the images directly inside it, by suffix, sorted, without hidden ones; a pattern
    with * ? or [ is expanded here as a shell would; "skimage:NAME" is a picture inside the
    scikit-image package; anything else is taken as a file, existing or not, so that opening it can
    say what is wrong.
    """
    files: dict[Path, None] = {}
    faults: dict[str, VovnetError] = {}
    left_out: dict[str, list[LeftOut]] = {}
    for source in sources:
        try:
            found, rest = _expand(source)
        except VovnetError as error:
            faults[source] = error
            continue
        files |= dict.fromkeys(found)
        if rest:
            left_out[source] = rest
    return Sources(list(files), faults, left_out)


def _expand(source: str) -> tuple[list[Path], list[LeftOut]]:
    if source.startswith(_SKIMAGE):
        return [_skimage_photograph(source.removeprefix(_SKIMAGE))], []
    if os.path.isdir(source):
        return _in_folder(Path(source))
    if not os.path.lexists(source) and any(c in source for c in "*?["):
        matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
        folders = [path for path in matches if os.path.isdir(path)]
        if len(folders) == len(matches):
            raise ImageError(f"{source}: matches no file; check the pattern")
        return [path for path in matches if path not in folders], count_left_out(folders)
    return [Path(source)], []


def _in_folder(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    try:
        listed = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from None
    found = [path for path in listed if _is_shown_picture(path)]
    rest = count_left_out(path for path in listed if not _is_shown_picture(path))
    if not found:
        holds = f" (it holds {', '.join(map(str, rest))})" if rest else ""
        raise ImageError(f"{folder}: no images in this folder{holds}; give one with images in it")
    return found, rest


def _is_shown_picture(path: Path) -> bool:
    return is_picture(path) and not path.name.startswith(".") and not os.path.isdir(path)


def _skimage_photograph(name: str) -> Path:
    """A picture file of scikit-image's data folder, found without importing the package."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise MissingExtraError("scikit-image", "demo")
    pictures = {p.stem: p for p in (Path(package.origin).parent / "data").glob("*.[pj][np]g")}
    if name not in pictures:
        raise UnknownNameError("scikit-image picture", name, sorted(pictures))
    return pictures[name]
