"""What kind of source a word names, told by the word alone."""

import os
import re
from enum import Enum
from pathlib import PurePosixPath
from urllib.parse import urlsplit

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".3gp", ".flv", ".wmv", ".ogv", ".mjpeg", ".h264", ".hevc"),
)
_STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")
_LIVE_SUFFIXES = (".mjpg", ".mjpeg", ".m3u8", ".cgi")


class Kind(Enum):
    """A file with one picture or many; what a web server says the kind of; what never ends."""

    PICTURE = "picture"
    VIDEO = "video"
    WEB = "web"
    LIVE = "live"


def kind_of(given: str | os.PathLike) -> Kind:
    """Videos are told by their suffix, live sources by a camera's number, /dev/video0, a scheme
    like rtsp:// or a suffix; what another address is, its server says."""
    name = os.fspath(given)
    scheme, colon, _ = name.partition("://")
    if not isinstance(given, str) or not colon:
        if isinstance(given, str) and is_camera(name):
            return Kind.LIVE
        return Kind.VIDEO if name.lower().endswith(VIDEO_SUFFIXES) else Kind.PICTURE
    suffix = PurePosixPath(urlsplit(name).path).suffix.lower()
    if scheme.lower() in _STREAMS or suffix in _LIVE_SUFFIXES:
        return Kind.LIVE
    if scheme.lower() not in ("http", "https"):
        return Kind.PICTURE
    return Kind.VIDEO if suffix in VIDEO_SUFFIXES else Kind.WEB


def is_camera(name: str) -> bool:
    """Whether it is a camera's number, and no file is called so, or a video device of Linux."""
    return bool(re.fullmatch(r"/dev/video\d+", name)) or (
        bool(re.fullmatch(r"\d{1,2}", name)) and not os.path.lexists(name)
    )
