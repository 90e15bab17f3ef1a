"""What the files are called that come of a source."""

import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from vovnet.predict.row import Given


class Names:
    """Gives every source a name of its own, without a suffix: no two alike, whatever their case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, given: Given) -> str:
        """The name of the next source; the same sources in the same order get the same names."""
        stem = given.stem if isinstance(given, Path) else _stem_of(given)
        name, number = stem, 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(key)
        return name


def _stem_of(given: str) -> str:
    """A plain name for an address or a camera."""
    if "://" not in given:
        return re.sub(r"\W+", "_", f"camera{given}" if given.isdecimal() else given).strip("_")
    parts = urlsplit(given)
    last = PurePosixPath(unquote(parts.path)).stem or parts.hostname or "picture"
    return re.sub(r"[^\w.-]+", "_", last).strip("_.")[:100] or "picture"
