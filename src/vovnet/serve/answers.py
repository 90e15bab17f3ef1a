"""What clients get: rows as `vovnet predict --json` prints them, or the annotated picture."""

import io
import json
from typing import Any

from vovnet.detect.found import Found, in_image
from vovnet.images.drawing import draw_detections
from vovnet.serve.refusal import Refusal
from vovnet.serve.service import Seen, Service, Upload

JSON = "application/json"
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
_OFFERED = (JSON, *_FORMATS)


def wanted_type(accept: str) -> str:
    """The best of what is offered for an Accept header: JSON unless a picture is asked for."""
    best, most = "", 0.0
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    for kind in _OFFERED:
        fits = [
            (len(pattern.replace("*", "")), quality)
            for pattern, quality in ranges
            if pattern in (kind, "*/*", kind.partition("/")[0] + "/*")
        ]
        quality = max(fits)[1] if fits else 0.0  # the most exact range counts
        if quality > most:
            best, most = kind, quality
    if not best:
        message = f"Accept: {accept[:100]!r} is not offered; ask for {', '.join(_OFFERED)}"
        raise Refusal(406, "parameters", message)
    return best


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (word.strip().lower() for word in part.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return kind, float(quality)
    except ValueError:
        return kind, 0.0


def as_json(service: Service, uploads: list[Upload], seen: list[Seen]) -> bytes:
    """The rows of a request's pictures, in their order."""
    pairs = zip(uploads, seen, strict=True)
    rows = [_row(service.detector.names, upload, one) for upload, one in pairs]
    answer = {"model": service.detector.name, "results": rows}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def as_picture(service: Service, upload: Upload, seen: Seen, kind: str) -> bytes:
    """The whole picture with what was found drawn on it."""
    detections = in_image(seen.found, seen.place, service.detector.names)
    drawn = draw_detections(service.open(upload).image, detections)
    data = io.BytesIO()
    drawn.save(data, _FORMATS[kind], **({"quality": 90} if kind == "image/jpeg" else {}))
    return data.getvalue()


def _row(names: tuple[str, ...], upload: Upload, seen: Seen) -> dict[str, Any]:
    stages = {"decode": seen.decode, "queue": seen.queue, "network": seen.network}
    return {
        "name": upload.name,
        "height": seen.place.height,
        "width": seen.place.width,
        "detections": objects(seen, names),
        "ms": {stage: round(seconds * 1e3, 3) for stage, seconds in stages.items()},
    }


def objects(seen: Seen, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """`Detections.to_dict()` of what was found; no two masks of the whole picture at a time, which
    may have many pixels."""
    found = seen.found
    if found.masks is None:
        return in_image(found, seen.place, names).to_dict()
    ones = (_one(found, index) for index in range(len(found.scores)))
    return [row for one in ones for row in in_image(one, seen.place, names).to_dict()]


def _one(found: Found, index: int) -> Found:
    part = slice(index, index + 1)
    masks, scores = (None if x is None else x[part] for x in (found.masks, found.mask_scores))
    return Found(found.boxes[part], found.scores[part], found.labels[part], masks, scores)
