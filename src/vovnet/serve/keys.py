"""API keys: who may use the service."""

import hashlib
import hmac
from pathlib import Path

from fastapi import Request

from vovnet.errors import VovnetError
from vovnet.serve.refusal import Refusal

_SHORTEST = 16  # characters; less can be guessed


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Digests of the keys in a file, one a line; several may be valid while they are changed.

    Raises `VovnetError` for a file without keys, and for keys that can be guessed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise VovnetError(f"--api-key-file {path}: cannot be read ({reason})") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise VovnetError(f"--api-key-file {path}: holds no key; write one a line")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise VovnetError(f"--api-key-file {path}: a key is no plain text; headers hold ASCII only")
    if any(len(key) < _SHORTEST for key in keys):
        raise VovnetError(
            f"--api-key-file {path}: a key is shorter than {_SHORTEST} characters; "
            "make one with: openssl rand -hex 32"
        )
    return tuple(_digest(key) for key in keys)


def check_key(request: Request) -> None:
    """Refuse a request without one of the keys, if the service has any.

    Digests are compared, all of them and in constant time: how long it takes tells nothing of how
    much of a key was right.
    """
    keys: tuple[bytes, ...] = request.app.state.keys
    if not keys:
        return
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else ""
    digest = _digest(given or request.headers.get("x-api-key", ""))
    right = [hmac.compare_digest(digest, key) for key in keys]
    if not any(right):
        message = "no valid API key; send the header Authorization: Bearer KEY"
        raise Refusal(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
