"""Pictures from a web server, with limits to their size and to the time they take."""

import re
import time
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from vovnet.errors import ImageError
from vovnet.predict.row import told
from vovnet.text import one_line

MAX_BYTES = 100_000_000
WAIT = 15.0  # seconds for an answer, and for each piece of it
WHOLE = 120.0  # seconds for all of it
_PIECE = 1 << 16


def fetch(
    address: str, *, max_bytes: int = MAX_BYTES, wait: float = WAIT, whole: float = WHOLE
) -> bytes | None:
    """The bytes of the picture at an http(s) address; None where the server sends a video.

    Raises `ImageError` for what is no picture, does not come, or passes a limit.
    """
    name = one_line(told(address))
    try:
        request = Request(address, headers={"User-Agent": "vovnet", "Accept": "image/*, */*"})
        with build_opener().open(request, timeout=wait) as answer:
            kind = answer.headers.get_content_type()
            if kind.startswith("video/"):
                return None
            if kind.startswith(("text/", "multipart/")):
                live = "; for a live stream give it alone" * kind.startswith("multipart/")
                raise ImageError(f"{name}: is {kind}, no picture{live}; check the address")
            return _read(answer, name, max_bytes, time.monotonic() + whole)
    except HTTPError as error:
        error.close()
        reason = one_line(error.reason)
        raise ImageError(f"{name}: the server says {error.code} {reason}; check it") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = one_line(getattr(error, "reason", None) or error or type(error).__name__)
        raise ImageError(f"{name}: cannot be fetched ({reason}); check the address") from None


def is_live(address: str, *, wait: float = WAIT) -> bool:
    """Whether an http(s) address sends pictures without end (MJPEG); False where it fails."""
    if not re.match(r"https?://", address, re.I):
        return False
    try:
        with build_opener().open(Request(address), timeout=wait) as answer:
            return answer.headers.get_content_type() == "multipart/x-mixed-replace"
    except (OSError, HTTPException, ValueError):
        return False  # fetching it will say why


def _read(answer: HTTPResponse, name: str, limit: int, until: float) -> bytes:
    told = answer.headers.get("Content-Length", "")
    size = int(told) if told.isdecimal() else 0
    data = bytearray()
    while size <= limit and len(data) <= limit:
        piece = answer.read1(_PIECE)
        if not piece:
            if len(data) < size:
                raise ImageError(f"{name}: broke off after {len(data)} bytes; try it again")
            return bytes(data)
        data += piece
        if time.monotonic() > until:
            raise ImageError(f"{name}: takes too long to come; fetch it yourself")
    raise ImageError(f"{name}: has over {limit / 1e6:g} MB; fetch it yourself, or shrink it")
