"""The body of a request, read no further than it may go."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from vovnet.serve.limits import Limits
from vovnet.serve.refusal import Refusal
from vovnet.serve.service import Upload
from vovnet.text import one_line, short

_Result = TypeVar("_Result")
_FIELD = "image"
_FIELDS = 16  # of a form that are no pictures; they are refused, one by one


class _InMemory(MultiPartParser):
    """Pictures never go to the disk: it may be read-only, and the body's limit bounds them."""

    spool_max_size = sys.maxsize


async def read_pictures(request: Request, limits: Limits) -> list[Upload]:
    """The pictures of a request: the fields `image` of a form, or else the body itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _in_time(_of_form(request, limits), limits)
    return [Upload(await read_body(request, limits))]


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body; raises `Refusal` if it is too long or too slow."""
    return await _in_time(_whole(request, limits.max_bytes), limits)


async def _whole(request: Request, most: int) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request, most)])


async def _of_form(request: Request, limits: Limits) -> list[Upload]:
    chunks = _chunks(request, limits.max_bytes)
    parser = _InMemory(
        request.headers, chunks, max_files=limits.queue, max_fields=_FIELDS, max_part_size=1000
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        message = f"the form is malformed ({one_line(error.message)}); send multipart/form-data"
        raise Refusal(400, "malformed", message) from None
    uploads = [await _upload(name, value) for name, value in form.multi_items()]
    await form.close()
    if not uploads:
        message = "the form holds no picture; send one in the field image: curl -F image=@FILE"
        raise Refusal(422, "malformed", message)
    return uploads


async def _upload(name: str, value: UploadFile | str) -> Upload:
    if name != _FIELD:
        message = (
            f"unknown field {short(name)}; pictures go in the field image, options in the query"
        )
        raise Refusal(422, "malformed", message)
    if isinstance(value, str):
        message = "the field image is no file; send it with a file name: curl -F image=@FILE"
        raise Refusal(422, "malformed", message)
    return Upload(await value.read(), value.filename or _FIELD)


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
