"""One request, read whole from a connection, within bounds that are set before it is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .replies import Refusal

HEAD_BYTES_MAX = 8 * 1024
READ_SECONDS = 10.0

_END_OF_HEAD = b"\r\n\r\n"
_PIECE_BYTES = 64 * 1024

BODY_BYTES_MAX = 4 * 1024

Room = Callable[[str, Mapping[str, str]], int]
"""How many bytes of body a request for a path, with these headers (in lower case), may have; asked only about those
that have more than BODY_BYTES_MAX."""


class Received(NamedTuple):
    """A request as its sender wrote it; `path` is as far as that is known."""

    octets: bytes
    path: str


class Unread(Refusal):
    """A request that was not read to its end. `path` is as far as that is known."""

    def __init__(self, status: int, text: str, path: str) -> None:
        super().__init__(status, text)
        self.path = path


async def read_request(reader: asyncio.StreamReader, room: Room) -> Received:
    """The next request. Raises Unread for one that is too large, too slow, or of unknown length; EOFError when the
    sender goes away in the midst of it."""
    octets = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            while (end := octets.find(_END_OF_HEAD)) < 0:
                if len(octets) > HEAD_BYTES_MAX:
                    raise Unread(431, "The request is too long.", _path(octets))
                octets += await _more(reader)
            end += len(_END_OF_HEAD)
            path = _path(octets)
            if end > HEAD_BYTES_MAX:
                raise Unread(431, "The request is too long.", path)
            whole = end + _body_bytes(bytes(octets[:end]), path, room)
            while len(octets) < whole:
                octets += await _more(reader)
    except TimeoutError:
        raise Unread(408, "The request took too long.", _path(octets)) from None
    return Received(bytes(octets[:whole]), path)


async def _more(reader: asyncio.StreamReader) -> bytes:
    piece = await reader.read(_PIECE_BYTES)
    if not piece:
        raise EOFError
    return piece


def _path(octets: bytes | bytearray) -> str:
    """What the first line asks for, without its query; empty when that isn't known."""
    words = bytes(octets[:HEAD_BYTES_MAX]).partition(b"\r\n")[0].decode("latin-1").split(" ")
    return words[1].partition("?")[0] if len(words) > 1 else ""


def _body_bytes(head: bytes, path: str, room: Room) -> int:
    """How many bytes follow the head."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "transfer-encoding":
            raise Unread(411, "The length of the request is missing.", path)
        if name == "content-length" and headers.get(name, value) != value:
            raise Unread(400, "That is no request that can be understood.", path)
        headers[name] = value
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise Unread(400, "That is no request that can be understood.", path)
    if int(length) > BODY_BYTES_MAX and int(length) > room(path, headers):
        raise Unread(413, "The request is too large.", path)
    return int(length)
