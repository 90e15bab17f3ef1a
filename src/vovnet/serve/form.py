"""A form, `multipart/form-data`, read in memory: the disk may be read-only."""

import logging
from collections.abc import AsyncIterable
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vovnet.serve.refusal import Refusal
from vovnet.text import one_line

# What is wrong with a form its sender is told; strangers write no lines into the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Part(NamedTuple):
    """One field of a form; `filename` is None for one that is no file."""

    name: str
    filename: str | None
    data: bytes


async def read_form(kind: str, chunks: AsyncIterable[bytes], most: int) -> list[Part]:
    """The parts of a form that arrives in chunks; `kind` is its Content-Type.

    Raises `Refusal` for one that is malformed, cut off, or has more than `most` parts.
    """
    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary:
        raise _malformed("its Content-Type names no boundary")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _malformed(one_line(error)) from None
    if not parts.ended:
        raise _malformed("it is cut off")
    return parts.read


class _Parts:
    """Listens to the parser; the parts as far as they are read."""

    def __init__(self, most: int) -> None:
        self.read: list[Part] = []
        self.ended = False
        self._most = most
        self._begin()

    def callbacks(self) -> Any:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._field, self._value, self._disposition = b"", b"", b""
        self._data = bytearray()

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _on_part(self) -> None:
        if len(self.read) == self._most:
            message = f"the form has more than {self._most} fields; send fewer pictures"
            raise Refusal(413, "too_large", message)
        words = parse_options_header(self._disposition)[1]
        filename = words.get(b"filename")
        self.read.append(
            Part(
                words.get(b"name", b"").decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                bytes(self._data),
            )
        )
        self._data = bytearray()

    def _on_end(self) -> None:
        self.ended = True


def _malformed(what: str) -> Refusal:
    return Refusal(400, "malformed", f"the form is malformed: {what}; send multipart/form-data")
