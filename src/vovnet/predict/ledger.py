"""What of a job is complete, noted in its journal once all that it wrote is on the disk."""

from vovnet.predict.appending import AppendFile
from vovnet.predict.journal import Journal
from vovnet.predict.parts import ParquetParts
from vovnet.predict.row import Given


class Ledger:
    """Keeps the growing files and the parts of Parquet in step with the journal, if there is one.

    A source in an open part is held back until the part is complete; `count` is that of the
    pictures and frames that are complete by then.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._count = journal.count if journal is not None else 0
        self._held: list[tuple[Given, int | None]] = []
        self.growing: list[AppendFile] = []
        self.parts: ParquetParts | None = None

    def finish(self, given: Given, frame: int | None, count: int) -> None:
        """A source, or a frame of one, is written."""
        last, before = self._held[-1] if self._held else (None, None)
        if last == given and before is not None:
            self._held.pop()  # an earlier frame of the same video
        self._held.append((given, frame))
        self._count = count
        self.commit()

    def commit(self) -> None:
        """What is written is whole; of a live source nothing more is noted."""
        if self.parts is None or self.parts.commit():
            self._note()

    def settle(self) -> None:
        """Complete what is complete but for its part, also if the job is stopped."""
        if self.parts is not None and self.parts.settle():
            self._note()

    def _note(self) -> None:
        if self._journal is None or not self._held:
            return
        self._journal.count = self._count
        marks = {str(file.path): file.size() for file in self.growing}
        self._journal.finish(self._held, marks | (self.parts.marks if self.parts else {}))
        self._held.clear()
