"""Images that two data sets share: what is learned by heart is no proof of anything."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from vovnet.data.finding import Finding
from vovnet.data.record import Dataset
from vovnet.text import one_line


def shared_images(learned: Dataset, judged: Dataset) -> tuple[Finding, ...]:
    """A finding for each image of `judged` that `learned` has too: the same file, or another with
    the same bytes. Only files of equal length are read."""
    known = _by_length(record.path for record in learned.records)
    by_length = _by_length(record.path for record in judged.records)
    found: list[Finding] = []
    for length in known.keys() & by_length.keys():
        originals = {_digest(path): path for path in known[length]}
        for path in by_length[length]:
            original = originals.get(_digest(path))
            if original is not None:
                what = f"is {one_line(original)} of the images to train on"
                found.append(Finding("VD401", what, judged.split, one_line(path.name)))
    return tuple(sorted(found, key=lambda finding: finding.image))


def _by_length(paths: Iterable[Path]) -> dict[int, list[Path]]:
    """The files by their length in bytes; those that are gone are left to whoever opens them."""
    found: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        try:
            found[os.stat(path).st_size].append(path)
        except OSError:
            continue
    return found


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return str(path).encode()
