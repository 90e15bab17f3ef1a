"""Files below a folder, looked up by names that come from untrusted annotations."""

import os
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from vovnet.errors import DataError
from vovnet.images import IMAGE_SUFFIXES
from vovnet.text import one_line

_LONGEST, _DEEPEST = 4096, 64  # characters and folders of a name
_SUSPICIOUS = re.compile(r"[\0:\\]|\.\.|^/")


class _Listing:
    """What one directory holds. `at` is its path below the folder."""

    def __init__(self, at: str, names: dict[str, bool]) -> None:
        self.at = at
        self.names = names  # and whether each is a link

    def match(self, name: str) -> str | None:
        """The entry called `name`, else the only one that is but for case, Unicode's form of
        accents, or an URL's escapes."""
        if name in self.names:
            return name
        alike = self._alike.get(_key(name), ())
        return alike[0] if len(alike) == 1 else None

    def pictures(self, stem: str) -> list[str]:
        """The picture files of that stem, in the order of their suffixes."""
        return self._pictures.get(stem, [])

    @cached_property
    def _alike(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            found[_key(name)].append(name)
        return found

    @cached_property
    def _pictures(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                found[stem].append(name)
        order = IMAGE_SUFFIXES.index
        for names in found.values():
            names.sort(key=lambda name: (order(os.path.splitext(name)[1].lower()), name))
        return found


def _key(name: str) -> str:
    text = unquote(name) if "%" in name else name
    return unicodedata.normalize("NFC", text).casefold()


class Folder:
    """Files below a folder, looked up by names that come from untrusted annotations.

    Each directory is listed once: existence and links are then known without a `stat` per file,
    which matters for 100,000 images on a network disk. Links may lead anywhere in the folder or in
    `home`, the whole data set.

    A name that is not there is taken for the only file whose name differs in case, in Unicode's
    form of accents, or in an URL's escapes: so do tools write them that ran on another system.
    """

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._homes = (self._real, os.path.realpath(home or root))
        self._listings: dict[str, _Listing] = {}

    def find(self, name: str, where: str) -> Path | None:
        """The file `name` below the folder, or None if there is none.

        Raises `DataError`, beginning with `where`, for a name that leaves the folder: absolute,
        with "..", or through a symbolic link.
        """
        listing, last = self._enter(name, where)
        found = listing.match(last)
        return None if found is None else self._path(listing, found, where)

    def find_picture(self, stem: str, where: str, given: str = "") -> Path | None:
        """The picture called `stem` but for its suffix: the one with the suffix of `given`, else
        the first by the order of `IMAGE_SUFFIXES`; None if there is none. Raises like `find`."""
        listing, last = self._enter(stem, where)
        names = listing.pictures(last)
        if not names:
            return self._alike_picture(listing, last, where)
        wanted = f"{last}{PurePosixPath(given).suffix}"
        return self._path(listing, wanted if wanted in names else names[0], where)

    def has(self, name: str) -> bool:
        """Whether `find` would find a name that stays in the folder, wherever a link leads."""
        listing, last = self._enter(name, name)
        return listing.match(last) is not None

    def has_picture(self, stem: str) -> bool:
        """Whether there is a picture of exactly that stem, wherever a link leads."""
        listing, last = self._enter(stem, stem)
        return bool(listing.pictures(last))

    def _alike_picture(self, listing: _Listing, stem: str, where: str) -> Path | None:
        matches = (listing.match(stem + suffix) for suffix in IMAGE_SUFFIXES)
        found = next((match for match in matches if match is not None), None)
        return None if found is None else self._path(listing, found, where)

    def _enter(self, name: str, where: str) -> tuple[_Listing, str]:
        """The listing of the directory that a name lies in, and its last part."""
        if _SUSPICIOUS.search(name) and ("\0" in name or leaves(name)):
            raise DataError(f"{where}: file name {one_line(repr(name))} leaves the data folder")
        if len(name) > _LONGEST or name.count("/") > _DEEPEST:  # nobody means such a one
            return _Listing(".", {}), name
        if "/" not in name:  # most, and a path is slow to make
            return self._list(".", where), name
        pure = PurePosixPath(name)
        return self._list(str(pure.parent), where), pure.name

    def _path(self, listing: _Listing, name: str, where: str) -> Path:
        path = self.root / (name if listing.at == "." else f"{listing.at}/{name}")
        if listing.names[name]:
            self._check(os.path.realpath(path), name, where)
        return path

    def _list(self, parent: str, where: str) -> _Listing:
        if parent not in self._listings:
            listing = self._scan(parent, where)
            if not listing.names and parent != ".":  # perhaps it is written otherwise
                pure = PurePosixPath(parent)
                above = self._list(str(pure.parent), where)
                name = above.match(pure.name)
                if name is not None and name != pure.name:
                    listing = self._scan(str(PurePosixPath(above.at) / name), where)
            self._listings[parent] = listing
        return self._listings[parent]

    def _scan(self, parent: str, where: str) -> _Listing:
        folder = os.path.join(self._real, parent)
        try:
            self._check(os.path.realpath(folder), parent, where)
            with os.scandir(folder) as entries:
                return _Listing(parent, {entry.name: entry.is_symlink() for entry in entries})
        except (OSError, ValueError):  # ValueError: a name that no file system can hold
            return _Listing(parent, {})

    def _check(self, real: str, name: str, where: str) -> None:
        if not any(Path(real).is_relative_to(home) for home in self._homes):
            raise DataError(
                f"{where}: {one_line(name)} is a link that leaves {one_line(self.root)}; "
                "copy the file there, or link the whole folder"
            )


def leaves(name: str) -> bool:
    """Whether a relative file name points outside its folder, going by its text."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or ".." in windows.parts


def below(root: Path, name: str) -> str:
    """A file name with "/", and made relative where it is an absolute one below `root`, itself
    perhaps a link."""
    name = name.replace("\\", "/")
    if not PureWindowsPath(name).anchor:
        return name
    for start in (os.path.abspath(root), os.path.realpath(root)):
        name = name.removeprefix(f"{Path(start).as_posix()}/")
    return name


def walk_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files of those suffixes in a folder and below it, sorted, relative to it, with "/"."""
    found: list[str] = []
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        # A link may lead back to where it is.
        folders[:] = [name for name in folders if _is_new(os.path.join(parent, name), seen)]
        inside = Path(parent).relative_to(folder)
        found += [(inside / file).as_posix() for file in files if file.lower().endswith(suffixes)]
    return sorted(found)


def _is_new(folder: str, seen: set[str]) -> bool:
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return not known
