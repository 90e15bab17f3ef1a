"""A job of `vovnet predict`: sources through a detector into every output that is asked for."""

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.images.drawing import draw_detections
from vovnet.predict.appending import AppendFile
from vovnet.predict.frames import STDIN, Frame, Reading, frames_of
from vovnet.predict.journal import Journal
from vovnet.predict.ledger import Ledger
from vovnet.predict.names import Names
from vovnet.predict.parts import ParquetParts, parquet_folder
from vovnet.predict.plan import Outputs, refuse_taken
from vovnet.predict.row import Given, Row
from vovnet.predict.shards import Shard
from vovnet.predict.sources import Sources
from vovnet.predict.stream import Look, check_numbers, looked_at, results, row_of
from vovnet.predict.tracking import CountLine
from vovnet.predict.writers import (
    Crops,
    Growing,
    Item,
    JsonLines,
    Labels,
    MotTracks,
    Pictures,
    Videos,
    Writer,
)


@dataclass(frozen=True)
class Taking:
    """How sources are taken: each `every`-th frame of a video, `batch` pictures at once; live ones
    with all frames kept or the newest, at most `max_fps` a second. `track_from` is the score from
    which objects are followed; those that cross the `count_line` are counted, in each video anew.
    `shard` is the part of standard input that is taken (None: all). `facts` are the options that
    decide on results, for `resume`; `tell` is told what happens to live sources."""

    every: int = 1
    batch: int = 1
    keep_all: bool = False
    max_fps: float | None = None
    track_from: float | None = None
    count_line: tuple[float, float, float, float] | None = None
    shard: Shard | None = None
    facts: tuple[tuple[str, Any], ...] = ()
    tell: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        check_numbers(every=self.every, batch=self.batch, max_fps=self.max_fps)


@contextmanager
def open_job(found: Sources, outputs: Outputs, taking: Taking) -> Iterator["Job"]:
    """A job that is ready to run; whatever stops it, what is done is kept.

    Raises `VovnetError` before anything is done if a file would be replaced that this job did not
    write, or a growing file cannot go on.
    """
    with ExitStack() as stack:
        yield Job(found, outputs, taking, stack)


class Job:
    """The writers of a job, its journal, and the names of its sources."""

    def __init__(self, found: Sources, outputs: Outputs, taking: Taking, stack: ExitStack) -> None:
        self._found, self._outputs, self._taking, self._stack = found, outputs, taking, stack
        self._names = Names()
        self._named: dict[Given, str] = {}  # of what is being read
        self._lines: dict[Given, CountLine] = {}
        self._live = False
        self._count = 0
        self._wrote = False
        self.skipped = 0  # sources that an earlier run has done
        self._journal = self._open_journal(taking)
        if self._journal is not None:
            stack.callback(self._close_journal)
            self._count = self._journal.count
        # Frames of a video are done one by one, unless they become one file.
        self._by_frame = not (outputs.pictured and outputs.drawn) and taking.track_from is None
        self._writers: list[Writer] = []
        self._ledger = Ledger(self._journal)
        self._open_writers()

    def rows(self, look: Look, side: int | None) -> Iterator[Row]:
        """Yield the row of every picture and frame when all of it is written; JPEG files are
        decoded at the least size that covers `side` (None: whole)."""
        taking, files = self._taking, self._found.files
        shard = {} if taking.shard is None else {"mine": taking.shard.has}
        whole = self._outputs.pictured
        how = Reading(side, whole, taking.every, self._done, self._start, **shard)
        frames, patient = frames_of(files, how), STDIN not in files
        how_many, high = taking.batch, taking.track_from
        for frame, seen in results(look, frames, batch=how_many, patient=patient, high=high):
            yield from self._take(frame, seen)
        if self._found.live:
            yield from self._live_rows(look)
        elif self._journal is not None:
            self._ledger.settle()
            self._journal.end()

    def _live_rows(self, look: Look) -> Iterator[Row]:
        from vovnet.predict.live import Live

        taking = self._taking
        how = {"keep_all": taking.keep_all, "max_fps": taking.max_fps, "tell": taking.tell}
        live = self._stack.enter_context(Live(self._found.live, **how))
        self._live = True
        if self._journal is not None:
            self._ledger.settle()  # what can be done again is noted before what cannot
            self._journal.live()
        for frame, seen in looked_at(look, live.batches(taking.batch), taking.track_from):
            yield from self._take(frame, seen)

    def _open_journal(self, taking: Taking) -> Journal | None:
        outputs = self._outputs
        kept = outputs.resume and outputs.out is not None
        journal = None
        facts = dict(taking.facts)
        if kept and outputs.out is not None:
            journal = Journal(outputs.out, facts, resume=True)
        resumed = journal is not None and journal.resumed
        if not resumed:
            try:
                refuse_taken(self._found, outputs)
            except VovnetError:
                if journal is not None:
                    journal.close(keep=False)
                raise
        if journal is None and outputs.out is not None:
            journal = Journal(outputs.out, facts, resume=False, overwrite=outputs.overwrite)
        return journal

    def _open_writers(self) -> None:
        outputs, taking, stack = self._outputs, self._taking, self._stack
        out = outputs.out
        if out is not None:
            draw = partial(
                draw_detections,
                captions=outputs.labels,
                line_width=outputs.line_width,
                colour=outputs.colour,
            )
            if outputs.drawn:
                self._add(stack, Pictures(out, draw, outputs.format))
                self._add(stack, Videos(out, draw, taking.every, taking.max_fps))
            if outputs.txt:
                self._add(stack, Labels(out))
            if outputs.mot:
                self._add(stack, MotTracks(out))
            if outputs.crops:
                self._add(stack, Crops(out))
            if outputs.parquet and self._journal is not None:
                parts = ParquetParts(out, self._journal.kept(parquet_folder(out)))
                self._ledger.parts = parts
                self._add(stack, parts)
        growing = outputs.growing()
        if self._journal is not None:
            self._journal.begin("", growing)
        for path, kind in growing.items():
            mark = self._journal.mark(path) if self._journal else None
            file = AppendFile(path, kind.head, kind.tail, mark=mark, overwrite=outputs.overwrite)
            self._ledger.growing.append(file)
            self._add(stack, kind(file))
        stack.callback(self._ledger.settle)  # also if it is stopped, while those files are open
        if outputs.jsonl == STDIN:
            self._add(stack, JsonLines(sys.stdout))

    def _add(self, stack: ExitStack, writer: Writer) -> None:
        self._writers.append(writer)
        stack.callback(writer.close)

    def _close_journal(self) -> None:
        if self._journal is not None:
            kept = self._wrote or self._ledger.growing or self._ledger.parts
            self._journal.close(keep=bool(kept))

    def _done(self, given: Given) -> bool:
        """Whether an earlier run has done a source."""
        return self._journal is not None and self._journal.done(given)

    def _start(self, given: Given) -> int:
        """The first frame of a video that is still to do."""
        return self._journal.start(given) if self._journal is not None else 0

    def _take(self, frame: Frame, seen: Detections | None) -> Iterable[Row]:
        """Write a frame, and note that; returns its row, or none of what is none."""
        name = self._name(frame)
        if frame.skipped:
            self.skipped += 1
            return ()
        if frame.end:
            self._lines.pop(frame.path, None)
            return self._end(frame)
        self._count += 1
        row = self._counted(row_of(frame, seen))
        item = Item(row, name, self._count, frame.whole, frame.rate, self._live)
        row = self._write(item)
        if self._live or not frame.video:  # a live source has no end that would finish it
            self._finish(frame)
        elif self._by_frame and frame.number is not None:
            self._finish(frame, frame.number)
        return (row,)

    def _end(self, frame: Frame) -> Iterable[Row]:
        """Finish a video; a row only if that fails."""
        for writer in self._writers:
            try:
                writer.end()
            except VovnetError as error:
                if _is_full(error):
                    raise
                return (Row(frame.path, None, str(error)),)
        self._finish(frame)
        return ()

    def _counted(self, row: Row) -> Row:
        """The row with what has crossed the line by now."""
        ends = self._taking.count_line
        if ends is None or row.detections is None or row.frame is None:
            return row
        line = self._lines.setdefault(row.path, CountLine(ends[:2], ends[2:]))
        return row._replace(counts=line.update(row.detections))

    def _write(self, item: Item) -> Row:
        row, journal = item.row, self._journal
        files = [path for writer in self._writers for path in writer.files(item)]
        if journal is not None and not self._live and files:
            journal.begin(row.path, files)
        for writer in self._writers:
            growing = isinstance(writer, Growing | ParquetParts)
            mine = journal is not None and all(map(journal.owns, writer.files(item)))
            try:
                row = writer.write(item._replace(row=row), self._outputs.overwrite or mine)
            except VovnetError as error:
                if growing or _is_full(error):
                    raise  # what goes on now would be lost; --resume does it when there is room
                row = row._replace(error=str(error))
            else:
                self._wrote = self._wrote or (not growing and row.detections is not None)
        return row

    def _finish(self, frame: Frame, number: int | None = None) -> None:
        if self._live:
            self._ledger.commit()
        else:
            self._ledger.finish(frame.path, number, self._count)

    def _name(self, frame: Frame) -> str:
        """The name of a source, kept as long as it lasts."""
        name = self._named.get(frame.path) or self._names.new(frame.path)
        if frame.end:
            self._named.pop(frame.path, None)
        elif frame.video:
            self._named[frame.path] = name
        return name


def _is_full(error: VovnetError) -> bool:
    """Whether a disk without room is behind an error."""
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
