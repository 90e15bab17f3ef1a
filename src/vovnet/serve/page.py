"""The page at /: one file, with nothing from elsewhere."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

page_routes = APIRouter(include_in_schema=False)


@page_routes.get("/")
async def page() -> HTMLResponse:
    """Drop a photo, see what is found."""
    text, policy = _page()
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


@cache
def _page() -> tuple[str, str]:
    """The page, and the policy by which it can load and run nothing but itself."""
    text = (files("vovnet.serve") / "page.html").read_text(encoding="utf-8")
    hashes = {
        tag: " ".join(f"'{_hash(body)}'" for body in re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", text))
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "img-src blob: data:; media-src blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
