"""What becomes of every result: one small class for each kind of output, all used alike."""

import csv
import io
import json
import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO

from PIL import Image

from vovnet.detections import Detections
from vovnet.errors import VovnetError
from vovnet.files import write_atomically
from vovnet.predict.appending import AppendFile
from vovnet.predict.picturefile import picture_suffix, write_picture
from vovnet.predict.row import Row, told
from vovnet.predict.videofile import VideoFile

Draw = Callable[[Image.Image, Detections], Image.Image]
_SEGMENT = 600.0  # seconds of a live source in one video
_LIVE_RATE = Fraction(25)


class Item(NamedTuple):
    """A row on its way out: the name that its files bear, its number among all, whether it is of a
    video or a live source, and its rate."""

    row: Row
    name: str
    number: int
    whole: Image.Image | None = None
    rate: Fraction | None = None
    live: bool = False

    @property
    def own_name(self) -> str:
        """Of a frame the name with its number."""
        return self.name if self.row.frame is None else f"{self.name}-{self.row.frame:06d}"


class Writer(Protocol):
    """`files` are those of its own that it writes for an item; `write` returns the row, perhaps
    with more in it; `end` comes after the last frame of a video, `close` at the end of all."""

    def files(self, item: Item) -> list[Path]:
        """Which files of their own an item gets."""
        ...

    def write(self, item: Item, replace: bool) -> Row:
        """Write an item that has detections; raises `VovnetError` if that cannot be done."""
        ...

    def end(self) -> None:
        """A video has come to its end."""
        ...

    def close(self) -> None:
        """The job has come to its end, or was stopped."""
        ...


class Pictures:
    """Annotated pictures, OUT/NAME with the suffix of the source, or of the format that is asked
    for."""

    def __init__(self, out: Path, draw: Draw, kind: str | None = None) -> None:
        self._out, self._draw, self._kind = out, draw, kind

    def files(self, item: Item) -> list[Path]:
        """The picture; none of a video's frame."""
        suffix = picture_suffix(item.row.path, self._kind)
        return [self._out / f"{item.name}{suffix}"] if item.row.frame is None else []

    def write(self, item: Item, replace: bool) -> Row:
        """Draw it, and tell where."""
        row = item.row
        if row.detections is None or item.whole is None or row.frame is not None:
            return row
        [path] = self.files(item)
        write_picture(path, self._draw(item.whole, row.detections), replace=replace)
        return row._replace(drawn=path)

    def end(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


class Videos:
    """Annotated videos, OUT/NAME.mp4; of live sources one each ten minutes, named by its begin."""

    def __init__(self, out: Path, draw: Draw, every: int, live_rate: float | None = None) -> None:
        self._out, self._draw, self._every = out, draw, every
        self._live_rate = Fraction(live_rate).limit_denominator(1000) if live_rate else _LIVE_RATE
        self._open: dict[str, tuple[VideoFile, float]] = {}
        self._failed: dict[str, VovnetError] = {}

    def files(self, item: Item) -> list[Path]:
        """The video of a frame; one of a live source has a name that nothing had before."""
        if item.row.frame is None or item.live:
            return []
        return [self._out / f"{item.name}.mp4"]

    def write(self, item: Item, replace: bool) -> Row:
        """Draw a frame and append it."""
        row = item.row
        if row.detections is None or item.whole is None or row.frame is None or row.time is None:
            return row
        if item.name in self._failed and not item.live:
            raise self._failed[item.name]
        try:
            video = self._video(item, row.time, replace)
            video.add(self._draw(item.whole, row.detections), row.time)
        except VovnetError as error:
            self._failed[item.name] = error
            if item.name in self._open:
                self._open.pop(item.name)[0].drop()
            raise
        return row._replace(drawn=video.path)

    def _video(self, item: Item, now: float, replace: bool) -> VideoFile:
        video, begun = self._open.get(item.name, (None, now))
        if video is not None and item.live and now - begun >= _SEGMENT:
            self._open.pop(item.name)
            video.close()
            video, begun = None, now
        if video is None:
            rate = self._live_rate if item.live else (item.rate or _LIVE_RATE) / self._every
            path = self._segment(item.name, now) if item.live else self.files(item)[0]
            assert item.whole is not None
            video = VideoFile(path, item.whole.size, rate, replace=replace, live=item.live)
            self._open[item.name] = video, begun
        return video

    def _segment(self, name: str, now: float) -> Path:
        stamp, number = time.strftime("%Y%m%d-%H%M%S", time.localtime(now)), 1
        path = self._out / f"{name}-{stamp}.mp4"
        while path.exists():
            number += 1
            path = self._out / f"{name}-{stamp}-{number}.mp4"
        return path

    def end(self) -> None:
        """Finish what is open."""
        self._failed.clear()
        while self._open:
            _, (video, _) = self._open.popitem()
            video.close()

    close = end


class Labels:
    """YOLO's label files, OUT/labels/NAME.txt, each line with its score, and then its track."""

    def __init__(self, out: Path) -> None:
        self._out = out / "labels"

    def files(self, item: Item) -> list[Path]:
        """One for each picture and frame."""
        return [self._out / f"{item.own_name}.txt"]

    def write(self, item: Item, replace: bool) -> Row:
        """Also an empty one, which says that nothing was found."""
        if (found := item.row.detections) is not None:
            lines = found.to_yolo(scores=True)
            if found.tracks is not None:
                lines = [f"{line} {n}" for line, n in zip(lines, found.tracks, strict=True)]
            text = "".join(f"{line}\n" for line in lines)
            write_atomically(self.files(item)[0], text.encode(), replace=replace)
        return item.row

    def end(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


class MotTracks:
    """The tracks of each video as MOTChallenge has them, OUT/mot/NAME.txt: frame, track, left, top,
    width, height, score and three times -1; frames and pixels count from 1 there."""

    def __init__(self, out: Path) -> None:
        self._out = out / "mot"
        self._files: dict[str, AppendFile] = {}
        self._failed: dict[str, VovnetError] = {}

    def files(self, item: Item) -> list[Path]:
        """One for a video; a live source has no end, and none."""
        return [] if item.live or item.row.frame is None else [self._out / f"{item.name}.txt"]

    def write(self, item: Item, replace: bool) -> Row:
        """Add a frame's objects; a video in which there are none has an empty file."""
        row = item.row
        if (found := row.detections) is None or row.frame is None or item.live:
            return row
        if item.name in self._failed:
            raise self._failed[item.name]
        try:
            if item.name not in self._files:
                self._files[item.name] = AppendFile(self.files(item)[0], overwrite=replace)
            self._files[item.name].write(_mot_lines(row.frame + 1, found))
        except VovnetError as error:
            self._files.pop(item.name, None)
            self._failed[item.name] = error  # of all its frames, or a part would pass for the whole
            raise
        return row

    def end(self) -> None:
        """The video's file is complete."""
        self._failed.clear()
        while self._files:
            self._files.popitem()[1].close()

    close = end


def _mot_lines(frame: int, found: Detections) -> str:
    tracks = [] if found.tracks is None else found.tracks.tolist()
    text = ""
    for track, box, score in zip(tracks, found.boxes.tolist(), found.scores.tolist(), strict=False):
        left, top, width, height = box[0] + 1, box[1] + 1, box[2] - box[0], box[3] - box[1]
        place = ",".join(f"{value:.2f}" for value in (left, top, width, height))
        text += f"{frame},{track},{place},{score:.4f},-1,-1,-1\n"
    return text


class Crops:
    """Every object as a picture, OUT/crops/LABEL/NAME-NUMBER.png."""

    def __init__(self, out: Path) -> None:
        self._out = out / "crops"

    def files(self, item: Item) -> list[Path]:
        """One for each object."""
        found = item.row.detections
        labels = [] if found is None else [found.names[label] for label in found.labels]
        folders = [self._out / (re.sub(r"[^\w-]+", "_", label) or "_") for label in labels]
        tracks = None if found is None else found.tracks
        ends = [""] * len(labels) if tracks is None else [f"-track{n}" for n in tracks]
        return [
            folder / f"{item.own_name}-{number}{end}.png"
            for number, (folder, end) in enumerate(zip(folders, ends, strict=True), start=1)
        ]

    def write(self, item: Item, replace: bool) -> Row:
        """Cut each object out, by whole pixels that hold its box."""
        if item.row.detections is not None and item.whole is not None:
            for path, (x1, y1, x2, y2) in zip(
                self.files(item), item.row.detections.boxes.tolist(), strict=True
            ):
                left, top = int(x1), int(y1)
                box = left, top, max(left + 1, -int(-x2 // 1)), max(top + 1, -int(-y2 // 1))
                write_picture(path, item.whole.crop(box), replace=replace)
        return item.row

    def end(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


class Growing:
    """What the files that grow have in common: `lines` of an item, added at once."""

    head, tail = "", ""

    def __init__(self, file: AppendFile | TextIO) -> None:
        self._file = file

    def files(self, item: Item) -> list[Path]:
        """None of an item's own."""
        return []

    def lines(self, item: Item) -> str:
        """What an item adds."""
        raise NotImplementedError

    def write(self, item: Item, replace: bool) -> Row:
        """Add it; all of it is with the system before the next comes."""
        if text := self.lines(item):
            self._file.write(text)
            if not isinstance(self._file, AppendFile):
                self._file.flush()
        return item.row

    def end(self) -> None:
        """It goes on growing."""

    def close(self) -> None:
        """The file's end is written; standard output stays open."""
        if isinstance(self._file, AppendFile):
            self._file.close()


class JsonLines(Growing):
    """A line of JSON for each row, as `--json` has them, failed ones too."""

    def lines(self, item: Item) -> str:
        """The row."""
        return json.dumps(item.row.to_dict(), ensure_ascii=False) + "\n"


class Table(Growing):
    """CSV, one line an object."""

    columns = ("path", "frame", "time", "label", "score", "x1", "y1", "x2", "y2", "track")
    head = ",".join(columns) + "\n"

    def lines(self, item: Item) -> str:
        """The objects of the row."""
        row = item.row
        if row.detections is None:
            return ""
        where = {"path": told(row.path), "frame": row.frame, "time": row.time}
        text = io.StringIO()
        table = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        table.writerows(where | one for one in row.detections.to_rows())
        return text.getvalue()


class CocoResults(Growing):
    """COCO's results, a JSON list with "file_name" beside each "image_id", which counts the
    pictures and frames from 1; of a live source it is the time in milliseconds since 1970."""

    head, tail = "[\n", "]\n"

    def lines(self, item: Item) -> str:
        """The objects of the row, each on a line of its own."""
        row = item.row
        if row.detections is None:
            return ""
        number = round((row.time or 0) * 1000) if item.live else item.number
        where = {"file_name": told(row.path)}
        if row.frame is not None:
            where |= {"frame": row.frame}
        text = ""
        for one in row.detections.to_coco(number):
            first = not text and isinstance(self._file, AppendFile) and self._file.empty
            text += " " * first + "," * (not first) + json.dumps(where | one) + "\n"
        return text
