"""Rows in files that cannot grow: each part is written aside and takes its name when complete."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from vovnet.errors import MissingExtraError, VovnetError
from vovnet.predict.row import Row
from vovnet.predict.writers import Item

_GROUP = 1_000  # rows of a row group, which is what is held in memory
_ROWS, _SECONDS = 100_000, 300.0  # of a part; what a kill costs at most


class JsonPart:
    """A part of JSON lines: NAME stands for all of it or is not there.

    What it is called meanwhile is like nothing else: several machines may write one part, of which
    one was thought lost; then the last one stays.
    """

    suffix = ".jsonl"

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._aside = path.with_name(f".{path.name}.{uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(self._aside, "xb")  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from None

    def add(self, row: Row) -> None:
        """Write a row, perhaps later."""
        self.count += 1
        try:
            self._put(row.to_dict())
        except OSError as error:
            self.drop()
            raise self._failed(error)  # noqa: B904  # a full disk is told by what is behind it

    def close(self) -> None:
        """All of it is on the disk, then under its name."""
        try:
            self._end()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._aside, self.path)
        except OSError as error:
            self.drop()
            raise self._failed(error)  # noqa: B904

    def drop(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):
            self._end()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._aside.unlink()

    def _put(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        self._file.write(line.encode("utf-8", "surrogateescape"))

    def _end(self) -> None:
        """Nothing is held back."""

    def _failed(self, error: OSError) -> VovnetError:
        return VovnetError(f"{self.path}: cannot write: {error.strerror or error}")


class ParquetPart(JsonPart):
    """A Parquet file with the rows of `--jsonl`, in row groups that are written as they arise."""

    suffix = ".parquet"

    def __init__(self, path: Path) -> None:
        self._pa, self._schema = schema()
        super().__init__(path)
        from pyarrow.parquet import ParquetWriter

        self._writer = ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def _put(self, row: dict[str, Any]) -> None:
        self._rows.append(_as_text(row))
        if len(self._rows) >= _GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def _end(self) -> None:
        self._write_group()
        self._writer.close()


class ParquetParts:
    """The writer of OUT/parquet/part-00001.parquet and so on.

    `kept` are the parts of an earlier run, None: all; others are its leavings. A part is complete
    only when a source is: `commit` says that one is.
    """

    def __init__(self, out: Path, kept: set[Path] | None) -> None:
        schema()  # if there is no pyarrow, nothing is touched
        self._folder = parquet_folder(out)
        there = parts_in(self._folder, ParquetPart.suffix)
        kept = set(there) if kept is None else kept
        for path in (*set(there) - kept, *self._folder.glob(".part-*.part")):
            path.unlink()
        self._number = max([0, *map(part_number, kept)])
        self._part: ParquetPart | None = None
        self._clean, self._since = True, 0.0
        self.marks: dict[str, int] = {}  # the last complete part and its bytes

    def files(self, item: Item) -> list[Path]:
        """None of an item's own."""
        return []

    def write(self, item: Item, replace: bool) -> Row:
        """Add the row, failed or not."""
        if self._part is None:
            self._part = ParquetPart(part_path(self._folder, self._number + 1, ".parquet"))
            self._since = time.monotonic()
        self._clean = False
        self._part.add(item.row)
        return item.row

    def commit(self) -> bool:
        """The rows of a source are all there; whether no part is open."""
        self._clean, part = True, self._part
        old = time.monotonic() - self._since >= _SECONDS
        if part is not None and (part.count >= _ROWS or old):
            self.settle()
        return self._part is None

    def settle(self) -> bool:
        """Complete the open part; unless a source is half in it, for all of it is made anew."""
        part, self._part = self._part, None
        if part is None:
            return True
        if not self._clean:
            part.drop()
            return False
        part.close()
        self._number += 1
        self.marks = {str(part.path): part.path.stat().st_size}
        return True

    def end(self) -> None:
        """It goes on."""

    def close(self) -> None:
        """What was not settled is no result."""
        if self._part is not None:
            self._part.drop()


def parquet_folder(out: Path) -> Path:
    """Where a job's parts of Parquet lie."""
    return out / "parquet"


def part_path(folder: Path, number: int, suffix: str) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05d}{suffix}"


def part_number(path: Path) -> int:
    """The number of a part, by its name."""
    return int(path.stem.removeprefix("part-"))


def parts_in(folder: Path, suffix: str) -> list[Path]:
    """The complete parts in a folder."""
    found = (path for path in folder.glob(f"part-*{suffix}"))
    return sorted((p for p in found if p.stem.removeprefix("part-").isdecimal()), key=part_number)


def schema() -> tuple[Any, Any]:
    """pyarrow, and a row of `--jsonl` in its words; raises `MissingExtraError`."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "Parquet") from None
    whole, real = pa.int64(), pa.float32()
    counts = pa.map_(pa.string(), pa.struct([("in", whole), ("out", whole)]))
    box = pa.struct([(corner, real) for corner in ("xmin", "ymin", "xmax", "ymax")])
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    one = [("label", pa.string()), ("score", real), ("box", box)]
    one += [("segmentation", mask), ("mask_score", real), ("track", whole)]
    columns = [("path", pa.string()), ("frame", whole), ("time", pa.float64())]
    columns += [("error", pa.string()), ("height", pa.int32()), ("width", pa.int32())]
    columns += [("annotated", pa.string()), ("counts", counts)]
    return pa, pa.schema([*columns, ("detections", pa.list_(pa.struct(one)))])


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row with names that are UTF-8: what is none is escaped."""
    texts = {key: plain(row[key]) for key in ("path", "error", "annotated") if row.get(key)}
    counts = {"counts": list(row["counts"].items())} if "counts" in row else {}
    return row | texts | counts


def plain(name: str) -> str:
    """A file's name as UTF-8, bytes that are none as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
