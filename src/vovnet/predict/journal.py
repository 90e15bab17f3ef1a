"""What a job has done, on disk, so that it can be killed at any moment and go on.

Before a source is written, its line "begin" names the files that will be its own; when all of it is
written, its line "done" (of a video "frame", where its frames are done one by one) tells how long
the growing files are by then. What stands behind the last such line is no result, but is known to
be this job's, and is made anew.

Files are told from the journal's own folder, as "./parquet/part-00001.parquet", so that this may be
spelled otherwise, or moved; older journals tell them as they were typed.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from vovnet.errors import VovnetError
from vovnet.predict.appending import AppendFile, whole_lines
from vovnet.predict.row import Given, told
from vovnet.predict.sources import JOURNAL


class Journal:
    """The journal of one folder; `job` are the options on which results depend.

    With `resume` it takes up what is there, and raises `VovnetError` if that was another job.
    """

    def __init__(
        self, folder: Path, job: dict[str, Any], *, resume: bool, overwrite: bool = False
    ) -> None:
        self.path = folder / JOURNAL
        self._real = lru_cache(1024)(partial(_real, os.path.realpath(folder)))
        self._done: Counter[str] = Counter()
        self._frames: dict[str, int] = {}
        self._marks: dict[str, int] = {}
        self._own: set[str] = set()
        self._grown: set[str] = set()  # the growing files that this job began
        self._live = False
        self.resumed = resume and self.path.is_file()
        self.count = 0  # pictures and frames that are complete
        mark = None
        if not (resume or overwrite):
            self._refuse_stopped()
        if self.resumed:
            mark = self._take(self._read(whole_lines(self.path), job))
        real = Path(os.path.realpath(folder))
        own = [_written(real, path) for path in sorted(self._own)]
        self._file = AppendFile(self.path, _line({"job": job}), mark=mark, overwrite=not resume)
        self._file.write(_line({"begin": "", "files": own, "pid": os.getpid()}))

    def _refuse_stopped(self) -> None:
        """Raise `VovnetError` if the folder holds a job that has not come to its end."""
        if not self.path.is_file():
            return
        last = self.path.read_bytes().splitlines()[-1:]
        if not last or not any(word in last[0] for word in (b'"end"', b'"live"')):
            raise VovnetError(
                f"--out {self.path.parent}: holds a job that was stopped; --resume goes on with "
                "it, or give another folder"
            )

    def _read(self, mark: int | None, job: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        """The whole lines, each with the offset of its end."""
        lines, offset = [], 0
        try:
            with self.path.open("rb") as file:
                for line in file.read(mark).splitlines(keepends=True):
                    offset += len(line)
                    lines.append((offset, json.loads(line)))
            before = lines[0][1]["job"] if lines else job
        except (OSError, ValueError, LookupError, TypeError):
            raise VovnetError(f"{self.path}: is damaged; give another --out") from None
        for key in {**before, **job}:
            if before.get(key) != job.get(key):
                raise VovnetError(
                    f"--resume: {self.path.parent} was made with {key} {before.get(key)}, not "
                    f"{job.get(key)}; give the same options, or another --out"
                )
        return lines

    def _take(self, lines: list[tuple[int, dict[str, Any]]]) -> int:
        """Learn what is complete; returns how much of the journal that is.

        After a loss of power the growing files may be shorter than the journal says: what is no
        longer in them is done again.
        """
        last, sound = 0, len(lines)
        for index, (_, line) in enumerate(lines):
            if "marks" in line:
                line["marks"] = {self._real(path): size for path, size in line["marks"].items()}
                if not _holds(line["marks"]):
                    sound = last
                    break
            if "begin" not in line:
                last = index + 1
        for _, line in lines[:last]:
            self._learn(line)
        for _, line in lines[last:]:
            self._own |= set(map(self._real, line.get("files", ())))
        _sweep(self._own, {line["pid"] for _, line in lines if "pid" in line})
        return lines[sound - 1][0] if sound else 0

    def _learn(self, line: dict[str, Any]) -> None:
        self._marks |= line.get("marks", {})
        self.count = line.get("count", self.count)
        if line.get("begin") == "":
            self._grown |= set(map(self._real, line["files"]))
        self._live = self._live or "live" in line
        for one in line.get("all", [line]):
            if "done" in one:
                self._done[one["done"]] += 1
                self._frames.pop(one["done"], None)
            elif "frame" in one:
                self._frames[one["of"]] = one["frame"] + 1

    def mark(self, path: Path) -> int | None:
        """How much of a growing file is complete; None if this run begins it.

        A live source's lines are never made again: of them all that are whole are kept.
        """
        if not self.resumed:
            return None
        if self._live:
            return whole_lines(path)
        begun = self.owns(path) or self._real(str(path)) in self._grown
        return self._marks.get(self._real(str(path)), 0 if begun else None)

    def kept(self, folder: Path) -> set[Path] | None:
        """The complete files of parts in a folder that this job wrote; None: all of them."""
        if self._live:
            return None
        real = os.path.realpath(folder)
        marked = map(Path, self._marks if self.resumed else ())
        return {folder / path.name for path in marked if str(path.parent) == real}

    def done(self, given: Given) -> bool:
        """Whether an earlier run has done this source; of one that is named twice, each once."""
        if not self._done[told(given)]:
            return False
        self._done[told(given)] -= 1
        return True

    def start(self, given: Given) -> int:
        """The first frame of a video that no earlier run has done."""
        return self._frames.get(told(given), 0)

    def owns(self, path: Path) -> bool:
        """Whether an earlier run of this job began to write a file, and did not come to its end."""
        return bool(self._own) and self._real(str(path)) in self._own

    def begin(self, given: Given, files: Iterable[Path]) -> None:
        """Say which files are about to be written."""
        written = [_written(self.path.parent, path) for path in files]
        self._file.write(_line({"begin": told(given), "files": written}))

    def finish(self, done: Sequence[tuple[Given, int | None]], marks: dict[str, int]) -> None:
        """Say that sources, or frames of one, are complete: one line, which is whole or nothing."""
        what = [
            {"done": told(given)} if frame is None else {"frame": frame, "of": told(given)}
            for given, frame in done
        ]
        line: dict[str, Any] = what[0] if len(what) == 1 else {"all": what}
        marks = {_written(self.path.parent, path): size for path, size in marks.items()}
        self._file.write(_line(line | {"count": self.count, "marks": marks}))

    def end(self) -> None:
        """Say that nothing is left to do."""
        self._file.write(_line({"end": True}))

    def live(self) -> None:
        """Say that what comes now is live, and cannot be done again."""
        self._file.write(_line({"live": True}))

    def close(self, *, keep: bool) -> None:
        """Close it; one of a job that wrote nothing is taken away."""
        self._file.close()
        if not keep and not self.resumed:
            os.unlink(self.path)


def _written(folder: Path, path: str | Path) -> str:
    """A path as the journal of a folder tells it; one outside is told whole."""
    with suppress(ValueError):
        return f"./{Path(path).relative_to(folder)}"
    return os.path.abspath(path)


def _real(folder: str, path: str) -> str:
    """Where a path leads that the journal of a folder tells, or that somebody typed."""
    return os.path.realpath(os.path.join(folder, path) if path.startswith("./") else path)


def _sweep(files: set[str], processes: set[int]) -> None:
    """Take away what killed processes had half written aside (`write_atomically`)."""
    for folder in {Path(path).parent for path in files}:
        for process in processes:
            with suppress(OSError):
                (folder / f".{process}.part").unlink()


def _holds(marks: dict[str, int]) -> bool:
    try:
        return all(os.path.getsize(path) >= size for path, size in marks.items())
    except OSError:
        return False


def _line(what: dict[str, Any]) -> str:
    return json.dumps(what, separators=(",", ":")) + "\n"
