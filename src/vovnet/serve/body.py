"""The body of a request, read no further than it may go."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from vovnet.serve.form import Part, read_form
from vovnet.serve.limits import Limits
from vovnet.serve.refusal import Refusal
from vovnet.serve.service import Service, Upload
from vovnet.text import short

_Result = TypeVar("_Result")
_FIELD = "image"


async def read_pictures(request: Request, service: Service) -> list[Upload]:
    """The pictures of a request: the fields `image` of a form, or else the body itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [Upload(await read_body(request, service))]
    return await _in_time(_of_form(request, service.limits), service.limits)


async def read_body(request: Request, service: Service) -> bytes:
    """The whole body; raises `Refusal` if it is too long or too slow."""
    return await _in_time(_whole(request, service.limits.max_bytes), service.limits)


async def client_leaves(request: Request) -> None:
    """Waits until the client of a request whose body is read ends its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(request: Request, most: int) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request, most)])


async def _of_form(request: Request, limits: Limits) -> list[Upload]:
    chunks = _chunks(request, limits.max_bytes)
    parts = await read_form(request.headers["content-type"], chunks, limits.queue)
    if not parts:
        message = "the form holds no picture; send one in the field image: curl -F image=@FILE"
        raise Refusal(422, "malformed", message)
    return [_upload(part) for part in parts]


def _upload(part: Part) -> Upload:
    if part.name != _FIELD:
        message = (
            f"unknown field {short(part.name)}; pictures go in the field image, options in the "
            "query"
        )
        raise Refusal(422, "malformed", message)
    if part.filename is None:
        message = "the field image is no file; send it with a file name: curl -F image=@FILE"
        raise Refusal(422, "malformed", message)
    return Upload(part.data, part.filename or _FIELD)


async def _chunks(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body piece by piece; raises `Refusal` at the first byte too many."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "malformed", "compressed bodies are not read; send it uncompressed")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_long(most)
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                raise _too_long(most)
            yield chunk
    except ClientDisconnect:
        raise Refusal(400, "gone", "the client left before its body was read") from None


def _too_long(most: int) -> Refusal:
    message = f"the body is over {most} bytes; send a smaller picture, or fewer"
    # What is left of it is not read, so the connection cannot be used again.
    return Refusal(413, "too_large", message, {"Connection": "close"})


async def _in_time(reading: Awaitable[_Result], limits: Limits) -> _Result:
    try:
        return await asyncio.wait_for(reading, limits.timeout)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {limits.timeout:g} s; send it faster"
        raise Refusal(408, "slow_body", message, {"Connection": "close"}) from None
