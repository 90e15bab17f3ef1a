"""A page from its parts, in one file: no request, no library, no network.

The page's own security policy forbids every request, and every style and script but its own.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any


def fill_page(package: str, **values: Any) -> str:
    """The `page.html` that lies in `package`, filled with values, all of them escaped.

    Its style is the one that all pages share, and `page.css` beside it; its script `page.js`, if
    there is one. The page finds both in `css` and `js`, and in `hashes` what its policy calls them
    by.
    """
    from jinja2 import Environment, StrictUndefined  # comes with the extra "train"

    parts = {
        "css": _text("vovnet.charts", "page.css") + _text(package, "page.css"),
        "js": _text(package, "page.js"),
    }
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_text(package, "page.html"))
    hashes = {name: _hash(text) for name, text in parts.items()}
    return template.render(**parts, hashes=hashes, **values)


def _text(package: str, name: str) -> str:
    """A part of a page; nothing where there is no such file."""
    part = files(package) / name
    return part.read_text(encoding="utf-8") if part.is_file() else ""


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
