"""Pictures of the page: what is labelled beside what was found, and the batch of a run's start."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vovnet.data.record import Record
from vovnet.detections import Detections
from vovnet.errors import ImageError
from vovnet.images import open_image
from vovnet.images.drawing import Framed, class_colour, draw_framed
from vovnet.review.choosing import Chosen
from vovnet.review.matches import Judged
from vovnet.text import one_line

BATCH = "batch.jpg"
# Told apart by colour-blind readers too.
HIT, FALSE, MISSED, IGNORED = (0, 114, 178), (213, 94, 0), (240, 228, 66), (128, 128, 128)
_SIDE = 360  # pixels at most
_QUALITY = 75
_NAMED, _NAMED_IN_TILE = 12, 4  # boxes: more captions than these hide the picture
MOST_TILES = 8  # pictures of a batch
_TILE, _BATCH_BYTES = 240, 300_000


@dataclass(frozen=True)
class Pair:
    """A picture twice, as data URIs: with its labels, and with what was found, in words too."""

    name: str
    why: str
    labelled: str
    found: str
    labelled_words: str
    found_words: str


def pair(judged: Judged, chosen: Chosen, conf: float) -> Pair | None:
    """The two pictures of an image; None if the file cannot be read any more."""
    index = chosen.index
    record, found = judged.records[index], judged.found[index]
    try:
        image, (height, width) = open_image(record.path, shrink_to=_SIDE)
    except ImageError:
        return None
    scale = min(1.0, _SIDE / max(height, width))
    image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    shown = found.scores > np.float32(conf)
    here = judged.matches.image == index
    hits = shown & _mask(judged.matches.row[here & judged.matches.hit], len(found))
    false = shown & _mask(judged.matches.row[here & ~judged.matches.hit], len(found))
    lost = (judged.matches.object_image == index) & (judged.matches.object_score <= conf)
    missed = _mask(judged.matches.object_row[lost], len(record.boxes))
    frames = [*_missed(record, missed), *_found(found, hits, HIT), *_found(found, false, FALSE)]
    frames += _found(found, shown & ~hits & ~false, IGNORED)
    return Pair(
        one_line(record.path.name),
        chosen.why,
        data_uri(_drawn(image, _labels(record, judged.names), scale)),
        data_uri(_drawn(image, frames, scale)),
        f"labels: {_words(judged.names[label] for label in record.labels)}",
        f"{hits.sum()} found, {false.sum()} false, {missed.sum()} missed",
    )


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a page holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def batch_picture(pixels: np.ndarray, boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray],
                  names: Sequence[str]) -> bytes:  # fmt: skip
    """Some samples of a training batch as one JPEG: N×H×W×3 pixels, and of each its boxes and
    labels."""
    count = min(len(pixels), MOST_TILES)
    columns = min(count, MOST_TILES // 2)
    height, width = pixels.shape[1:3]
    scale = min(1.0, _TILE / max(height, width))
    tile = max(1, round(width * scale)), max(1, round(height * scale))
    rows = -(-count // columns)
    sheet = Image.new("RGB", (tile[0] * columns, tile[1] * rows), (114, 114, 114))
    for number in range(count):
        colours = [class_colour(int(label), len(names)) for label in labels[number]]
        framed = [
            Framed(_box(box), colour, names[int(label)])
            for box, label, colour in zip(
                boxes[number] * scale, labels[number], colours, strict=True
            )
        ]
        picture = Image.fromarray(pixels[number]).resize(tile)
        place = tile[0] * (number % columns), tile[1] * (number // columns)
        sheet.paste(draw_framed(picture, _captioned(framed, _NAMED_IN_TILE), 1), place)
    return next(
        filter(_small, (_jpeg(sheet, quality) for quality in (80, 60, 40))), _jpeg(sheet, 20)
    )


def _small(jpeg: bytes) -> bool:
    return len(jpeg) <= _BATCH_BYTES


def _mask(rows: np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, bool)
    mask[rows] = True
    return mask


def _labels(record: Record, names: Sequence[str]) -> list[Framed]:
    return [
        Framed(_box(box), class_colour(int(label), len(names)), names[int(label)])
        for box, label in zip(record.boxes, record.labels, strict=True)
    ]


def _missed(record: Record, which: np.ndarray) -> list[Framed]:
    return [Framed(_box(box), MISSED) for box in record.boxes[which]]


def _found(found: Detections, which: np.ndarray, colour: tuple[int, int, int]) -> list[Framed]:
    """Detections of one kind, best on top."""
    return [
        Framed(
            _box(found.boxes[i]), colour, f"{found.names[found.labels[i]]} {found.scores[i]:.2f}"
        )
        for i in np.flatnonzero(which)[::-1]
    ]


def _box(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return x1, y1, max(x1, x2), max(y1, y2)


def _drawn(image: Image.Image, framed: Sequence[Framed], scale: float) -> bytes:
    scaled = [one._replace(box=_box(np.array(one.box) * scale)) for one in framed]
    return _jpeg(draw_framed(image, _captioned(scaled, _NAMED)), _QUALITY)


def _captioned(framed: Sequence[Framed], most: int) -> list[Framed]:
    """Where there are too many captions, one for each colour: that of its largest box."""
    if len(framed) <= most:
        return list(framed)
    areas = [(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) for one in framed]
    largest: dict[tuple[int, int, int], int] = {}
    for i, one in enumerate(framed):
        if one.caption and areas[i] > areas[largest.setdefault(one.colour, i)]:
            largest[one.colour] = i
    kept = set(largest.values())
    return [one if i in kept else one._replace(caption="") for i, one in enumerate(framed)]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, optimize=True)
    return data.getvalue()


def _words(names: Iterable[str]) -> str:
    """3 cats, 1 dog: for those who do not see the picture."""
    counts = Counter(names)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
