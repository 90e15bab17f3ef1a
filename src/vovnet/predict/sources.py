"""Which image files a list of files, folders and globs means."""

import glob
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from vovnet.data.images import IMAGE_SUFFIXES
from vovnet.errors import ImageError, MissingExtraError, UnknownNameError

_SKIMAGE = "skimage:"


def expand_sources(sources: Iterable[str]) -> list[Path]:
    """Image files in order, without repeats.

    A folder gives the images directly inside it, by suffix, sorted, without hidden ones; a pattern
    with * ? or [ is expanded here as a shell would; "skimage:NAME" is a picture inside the
    scikit-image package; anything else is taken as a file, existing or not, so that opening it can
    say what is wrong. Raises `ImageError` for a folder or pattern without images.
    """
    files: dict[Path, None] = {}
    for source in sources:
        for path in _expand(source):
            files.setdefault(path)
    return list(files)


def _expand(source: str) -> list[Path]:
    path = Path(source)
    if source.startswith(_SKIMAGE):
        return [_skimage_photograph(source.removeprefix(_SKIMAGE))]
    if os.path.isdir(source):
        found = sorted(p for p in _listed(path) if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ImageError(f"{source}: no images in this folder; give one with images in it")
        return found
    if not os.path.lexists(source) and any(c in source for c in "*?["):
        found = sorted(Path(p) for p in glob.glob(source, recursive=True) if os.path.isfile(p))
        if not found:
            raise ImageError(f"{source}: matches no file; check the pattern")
        return found
    return [path]


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from None


def _skimage_photograph(name: str) -> Path:
    """A picture file of scikit-image's data folder, found without importing the package."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise MissingExtraError("scikit-image", "demo")
    pictures = {p.stem: p for p in (Path(package.origin).parent / "data").glob("*.[pj][np]g")}
    if name not in pictures:
        raise UnknownNameError("scikit-image picture", name, sorted(pictures))
    return pictures[name]
