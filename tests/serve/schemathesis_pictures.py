"""Pictures for schemathesis to send, which loads this by the name in schemathesis.toml."""

import io

import schemathesis
from hypothesis import strategies
from PIL import Image


def _files() -> list[bytes]:
    files = []
    for kind, size in (("PNG", (1, 1)), ("JPEG", (64, 48)), ("GIF", (3, 200)), ("BMP", (40, 40))):
        data = io.BytesIO()
        Image.linear_gradient("L").resize(size).save(data, kind)
        files.append(data.getvalue())
    return files


_PICTURES = strategies.sampled_from(_files()) | strategies.binary(max_size=200)
for name in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(name, _PICTURES)
schemathesis.openapi.format("binary", _PICTURES)
