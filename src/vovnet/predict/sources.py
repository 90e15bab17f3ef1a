"""Which pictures, videos and live sources a list of files, folders, globs and addresses means."""

import glob
import importlib.util
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vovnet.data.left_out import LeftOut, count_left_out
from vovnet.errors import ImageError, MissingExtraError, UnknownNameError, VovnetError
from vovnet.images import is_picture
from vovnet.predict.kinds import Kind, kind_of
from vovnet.predict.row import Given

_SKIMAGE = "skimage:"
STDIN = "-"
JOURNAL = ".predict.jsonl"  # marks a folder that `vovnet predict` wrote


class _File(str):
    """The path of a file, as text; other texts are addresses."""

    __slots__ = ()


class Files(Collection[Given]):
    """Files and addresses in order, without repeats, kept as text: paths would take several times
    the memory, and there may be millions."""

    def __init__(self, given: Iterable[Given]) -> None:
        texts = (_File(one) if isinstance(one, Path | _File) else one for one in given)
        self._texts = list(dict.fromkeys(texts))

    def __iter__(self) -> Iterator[Given]:
        return (Path(text) if isinstance(text, _File) else text for text in self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, given: object) -> bool:
        if not isinstance(given, Path | str):
            return False
        wanted, is_file = str(given), isinstance(given, Path)
        return any(one == wanted and isinstance(one, _File) == is_file for one in self._texts)


class Sources(NamedTuple):
    """Files and addresses ("-" is standard input); live sources; sources that give none, with the
    reason; and what folders and patterns hold beside pictures, by source."""

    files: Collection[Given]
    faults: dict[str, VovnetError]
    left_out: dict[str, list[LeftOut]]
    live: list[str]


def expand_sources(sources: Iterable[str]) -> list[Path]:
    """The files of `find_sources`; raises the first fault."""
    found = find_sources(sources)
    for fault in found.faults.values():
        raise fault
    for given in (*found.live, *(given for given in found.files if isinstance(given, str))):
        raise ImageError(f"{given}: is no file; give pictures as files")
    return [Path(given) for given in found.files]


def find_sources(sources: Iterable[str], *, recursive: bool = False) -> Sources:
    """The pictures, videos and live sources that are meant; a bad source hinders no other.

    A folder gives the images directly inside it, by suffix, sorted, without hidden ones, and if
    `recursive` those of its folders, but for what `predict` wrote; a pattern with * ? or [ is
    expanded here as a shell would; an existing .txt file lists files and addresses, one a line;
    "-" is standard input, http(s) and rtsp addresses and a camera's number are what they are;
    "skimage:NAME" is a picture inside the scikit-image package; anything else is taken as a file,
    existing or not, so that opening it can say what is wrong.
    """
    files: list[Given] = []
    faults: dict[str, VovnetError] = {}
    left_out: dict[str, list[LeftOut]] = {}
    live: dict[str, None] = {}
    for source in sources:
        try:
            if _is_live(source):
                live[source] = None
                continue
            found, rest = _expand(source, recursive)
        except VovnetError as error:
            faults[source] = error
            continue
        files += found
        if rest:
            left_out[source] = rest
    return Sources(Files(files), faults, left_out, list(live))


def _is_live(source: str) -> bool:
    kind = kind_of(source)
    if kind is Kind.WEB and not is_picture(source.partition("?")[0]):
        from vovnet.predict.web import is_live

        return is_live(source)
    return kind is Kind.LIVE


def _expand(source: str, recursive: bool) -> tuple[list[Given], list[LeftOut]]:
    if source in (STDIN, "/dev/stdin"):
        return [STDIN], []
    if "://" in source:
        return [source], []
    if source.startswith(_SKIMAGE):
        return [_skimage_photograph(source.removeprefix(_SKIMAGE))], []
    if os.path.isdir(source):
        return _in_folder(Path(source), recursive)
    if not os.path.lexists(source) and any(c in source for c in "*?["):
        matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
        folders = [path for path in matches if os.path.isdir(path)]
        if len(folders) == len(matches):
            raise ImageError(f"{source}: matches no file; check the pattern")
        return [path for path in matches if path not in folders], count_left_out(folders)
    if source.lower().endswith(".txt") and os.path.isfile(source):
        return _in_list(Path(source)), []
    return [Path(source)], []


def _in_list(path: Path) -> list[Given]:
    """What a text file lists; a path is the working folder's, or else the list's own folder's."""
    from vovnet.predict.frames import names_in

    try:
        with path.open("rb") as file:
            listed = names_in(file)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if not listed:
        raise ImageError(f"{path}: lists nothing; write one path or address a line")
    return [_beside(path, given) for given in listed]


def _beside(path: Path, given: Given) -> Given:
    if isinstance(given, str) or os.path.lexists(given):
        return given
    return there if os.path.lexists(there := path.parent / given) else given


def _in_folder(folder: Path, recursive: bool) -> tuple[list[Given], list[LeftOut]]:
    found: list[Given] = []
    rest: list[Path] = []
    for path in _walk(folder) if recursive else _listed(folder):
        if _is_shown_picture(path):
            found.append(_File(path))
        else:
            rest.append(path)
    left_out = count_left_out(rest)
    if not found:
        holds = f" (it holds {', '.join(map(str, left_out))})" if left_out else ""
        deeper = any(kind.kind == "folder" for kind in left_out) and not recursive
        mend = ", or --recursive" * deeper
        raise ImageError(
            f"{folder}: no images in this folder{holds}; give one with images in it{mend}"
        )
    return found, left_out


def _listed(folder: Path) -> Iterator[Path]:
    """What is in a folder, by name; one path at a time."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from None
    return (folder / name for name in names)


def _walk(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, but for hidden ones, links, and `predict`'s own."""
    deeper = []
    for path in _listed(folder):
        if path.is_symlink() or not os.path.isdir(path):
            yield path
        elif not path.name.startswith(".") and not (path / JOURNAL).exists():
            deeper.append(path)
    for path in deeper:
        yield from _walk(path)


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
