"""What the image files themselves say: headers always, pixels when asked for or when in doubt."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vovnet.data.frame import ImageHeader
from vovnet.errors import ImageError
from vovnet.images import MAX_PIXELS, header_of, opened
from vovnet.images.pixels import depth_note, to_rgb
from vovnet.limits import usable_cores
from vovnet.text import one_line

Track = Callable[[Iterable["Facts"], int], Iterable["Facts"]]  # (facts, how many), passed on

LOOK_SIDE = 16
_TAIL = 1024
_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_MOST_WORKERS = 8


class Facts(NamedTuple):
    """One image file, of `length` bytes.

    `fault` is the id of its finding and what is wrong with it. `digest` is there for files that
    share their length with another, `look` (16×16 grey levels) where the pixels were read. `depth`
    says how pixels of more than 8 bits are read.
    """

    length: int = 0
    header: ImageHeader | None = None
    format: str = ""
    mode: str = ""
    animated: bool = False
    depth: str | None = None
    fault: tuple[str, str] | None = None
    digest: bytes = b""
    look: np.ndarray | None = None


def probe_files(
    paths: Iterable[Path],
    *,
    pixels: bool,
    workers: int,
    track: Track,
) -> dict[Path, Facts]:
    """The facts of each file; `workers` threads share the work (Pillow decodes beside Python), and
    `track` sees it go on."""
    paths = list(dict.fromkeys(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Here and not only in `opened`: a thread that leaves it restores what another had found.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        probed = track(pool.map(partial(probe, pixels=pixels), paths), len(paths))
        facts = dict(zip(paths, probed, strict=True))
        twins = _same_length(facts)
        for path, digest in zip(twins, pool.map(_digest, twins), strict=True):
            facts[path] = facts[path]._replace(digest=digest)
    return facts


def default_workers() -> int:
    """A thread for each processor that this process may use, eight at most."""
    return min(usable_cores(), _MOST_WORKERS)


def probe(path: Path, *, pixels: bool) -> Facts:
    """The facts of one file, all but its digest; never raises for what the file holds."""
    length = 0
    try:
        length = os.stat(path).st_size
        if length == 0:
            return Facts(fault=("VD102", "0 bytes"))
        with opened(path) as image:
            facts = _of_header(image, length)
    except OSError as error:
        return Facts(length, fault=("VD103", one_line(error.strerror)))
    except ImageError as error:
        bomb = isinstance(error.__cause__, Image.DecompressionBombError)
        return Facts(length, fault=("VD105" if bomb else "VD103", _reason(error, path)))
    if facts.fault or not (pixels or _cut_short(path, facts)):
        return facts
    try:
        with opened(path) as image:
            return _looked_at(image, facts, one_line(path))
    except ImageError as error:
        damaged = error.__cause__ is not None  # else `to_rgb` refuses what the pixels mean
        return facts._replace(fault=("VD104" if damaged else "VD119", _reason(error, path)))


def _of_header(image: Image.Image, length: int) -> Facts:
    header = header_of(image)
    height, width = header.size
    fault = None
    if height * width > MAX_PIXELS:
        fault = ("VD105", f"{width}x{height}, over {MAX_PIXELS / 1e6:.4g} million pixels")
    many = image.format not in _MARKS or image.format == "PNG"  # MPO: a picture for each eye
    return Facts(
        length,
        header,
        image.format or "",
        image.mode,
        many and bool(getattr(image, "is_animated", False)),
        depth_note(image),
        fault,
    )


def _cut_short(path: Path, facts: Facts) -> bool:
    """Whether a JPEG or PNG lacks the mark at its end; of the others only decoding can tell."""
    mark = _MARKS.get(facts.format)
    if mark is None:
        return True
    with path.open("rb") as file:
        file.seek(max(facts.length - _TAIL, 0))
        return mark not in file.read()


def _looked_at(image: Image.Image, facts: Facts, name: str) -> Facts:
    """The facts with the picture as stored, 16×16 grey; all of the file is decoded for it."""
    if facts.depth is None:
        image.draft("L", (4 * LOOK_SIDE, 4 * LOOK_SIDE))  # JPEG: small and grey, in half the time
        picture, depth = image, None
    else:
        note = depth_note(image)
        picture = to_rgb(image, name)
        depth = depth_note(image, picture) or note
    small = picture.convert("L").resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BILINEAR)
    return facts._replace(look=np.asarray(small, dtype=np.uint8), depth=depth)


def _reason(error: ImageError, path: Path) -> str:
    return str(error).removeprefix(f"{one_line(path)}: ")


def _same_length(facts: dict[Path, Facts]) -> list[Path]:
    """The files that share their length with another: only these can be equal."""
    lengths: dict[int, list[Path]] = defaultdict(list)
    for path, of_file in facts.items():
        if of_file.length and of_file.header is not None:
            lengths[of_file.length].append(path)
    return [path for paths in lengths.values() if len(paths) > 1 for path in paths]


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:  # gone since its header was read
        return b""
