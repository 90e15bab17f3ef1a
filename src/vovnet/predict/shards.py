"""A job cut into shards for any scheduler: every process finds all sources and takes its own.

A source belongs to a shard by a hash of its name, not by its place in the list: when a folder
grows, what was there stays with its shard, so that `--resume` does only what is new.
"""

import os
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from vovnet.errors import VovnetError
from vovnet.predict.row import Given, told
from vovnet.predict.sources import STDIN, Files, Sources

_FOLDER = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Shard:
    """Shard `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "2/8" means; raises `VovnetError`."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise VovnetError(f"--shard {text}: give i/n with i from 1 to n, such as 2/8")
        return cls(number, count)

    def __str__(self) -> str:
        """As files and folders are called: 00002-of-00008."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def has(self, given: Given) -> bool:
        """Whether a source is this shard's; standard input is every one's, its lines are not."""
        if given == STDIN:
            return True
        digest = blake2b(os.fsencode(told(given)), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1

    def of(self, found: Sources) -> Sources:
        """What of all sources is this shard's, faults and what was left out too."""
        return Sources(
            Files(given for given in found.files if self.has(given)),
            {name: fault for name, fault in found.faults.items() if self.has(name)},
            {name: rest for name, rest in found.left_out.items() if self.has(name)},
            [given for given in found.live if self.has(given)],
        )

    def folder(self, out: Path) -> Path:
        """Where this shard writes below the folder of all; raises `VovnetError` if that holds
        another number of shards, for sources would be done twice."""
        counts = {int(m[2]) for path in out.glob("shard-*") if (m := _FOLDER.fullmatch(path.name))}
        if counts - {self.count}:
            before = min(counts - {self.count})
            raise VovnetError(
                f"--shard {self.number}/{self.count}: {out} holds shards of {before}; "
                f"go on with --shard i/{before}, or give another --out"
            )
        return out / f"shard-{self}"

    def file(self, path: str) -> str:
        """A file's name with the shard's: rows.jsonl is rows-00002-of-00008.jsonl."""
        plain = Path(path)
        return path if path == STDIN else str(plain.with_name(f"{plain.stem}-{self}{plain.suffix}"))
