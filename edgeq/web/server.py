"""The HTTP server: pages for people, on an address that is configured.

What can be relied on, whatever is sent to it:

- A request has HEAD_BYTES_MAX of head and BODY_BYTES_MAX of body (more where a page gives more room to who may use it),
  is here within READ_SECONDS and answered within ANSWER_SECONDS; else it is refused. It is read whole before anybody
  looks at it.
- At most CONNECTIONS_MAX are served at once, others are refused at once. Each connection is for one request.
- Whoever gets a page is told not to keep it, not to show it in a frame, and to run nothing that stands in it. An
  error of ours shows nothing of what is inside.

There is no TLS: it is meant for an address that only this machine, or a trusted network, can reach, or for a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from microdot import Microdot, Request, Response

from ..clock import Clock
from ..config.checks import address
from ..errors import EdgeqError, StoreError
from ..service import Service
from .html import html_page

HEAD_BYTES_MAX = 8 * 1024
BODY_BYTES_MAX = 4 * 1024
READ_SECONDS = 10.0
ANSWER_SECONDS = 20.0
CONNECTIONS_MAX = 32

_ANY_SIZE = 2**31
_END_OF_HEAD = b"\r\n\r\n"


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        self.sentence = sentence


def _little(headers: Mapping[str, str]) -> int:
    return BODY_BYTES_MAX


class Page(NamedTuple):
    """What `answer` makes of requests to `path`, in which `<name>` stands for a part that it is given. `room` says how
    many bytes of body a request with these headers (in lower case) may have."""

    path: str
    methods: tuple[str, ...]
    answer: Callable[..., Awaitable[Response]]
    room: Callable[[Mapping[str, str]], int] = _little


class WebServer(Service):
    """Serves `pages` on `listen` (see checks.address)."""

    def __init__(self, listen: str, clock: Clock, pages: Iterable[Page]) -> None:
        super().__init__("web", clock)
        self._listen = listen
        self._app = Microdot()
        self._app.errorhandler(404)(_not_found)
        self._app.errorhandler(405)(_not_allowed)
        self._room: dict[str, Callable[[Mapping[str, str]], int]] = {}
        # How much may come is decided here, before it is read.
        Request.max_content_length = Request.max_body_length = _ANY_SIZE
        for each in pages:
            self._room[each.path] = each.room
            self._app.route(each.path, methods=list(each.methods))(self._carefully(each.answer))
        self._connections: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """See Service. Raises EdgeqError when the address can't be had."""
        host, port = address(self._listen)
        try:
            server = await asyncio.start_server(self._serve, host or None, port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            raise EdgeqError(f"can't listen on {self._listen}: {error.strerror or error}") from error
        self.log.info("listening on %s", self._listen)
        try:
            await self.stopping.wait()
        finally:
            server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        full = len(self._connections) >= CONNECTIONS_MAX
        self._connections.add(task)
        try:
            async with asyncio.timeout(READ_SECONDS + ANSWER_SECONDS):
                if full:
                    response = html_page(503, "Not now", "Too many are here at once. Try again in a while.")
                else:
                    response = await self._answer(reader, writer)
                reply = _Reply()
                await response.write(reply)  # type: ignore[arg-type]
                writer.write(bytes(reply.octets))
                await writer.drain()
        except (TimeoutError, OSError, EOFError):
            pass  # nobody is there any more who could be told
        except asyncio.CancelledError:
            self.log.debug("a request was cut off: edgeq is ending")
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Response:
        try:
            request = await self._read(reader, writer)
        except _Refused as refused:
            return html_page(refused.status, "Not understood", refused.sentence)
        response: Response = await self._app.dispatch_request(request)
        return response

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        whole = asyncio.StreamReader()
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(_END_OF_HEAD)
                whole.feed_data(head)
                if size := self._body_size(head):
                    whole.feed_data(await reader.readexactly(size))
        except asyncio.LimitOverrunError:
            raise _Refused(431, "The request is too long.") from None
        except TimeoutError:
            raise _Refused(408, "The request took too long.") from None
        whole.feed_eof()
        try:
            request: Request = await Request.create(self._app, whole, writer, writer.get_extra_info("peername"))
        except (ValueError, IndexError, EOFError):
            raise _Refused(400, "That is no request that can be understood.") from None
        return request

    def _body_size(self, head: bytes) -> int:
        """How many bytes follow the head. Raises _Refused for a body that is too large, or of unknown size."""
        first, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "transfer-encoding":
                raise _Refused(411, "The length of the request is missing.")
            if name == "content-length" and headers.get(name, value) != value:
                raise _Refused(400, "That is no request that can be understood.")
            headers[name] = value
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise _Refused(400, "That is no request that can be understood.")
        path = first.split(" ")[1].partition("?")[0] if first.count(" ") == 2 else ""
        if int(length) > self._room.get(path, _little)(headers):
            raise _Refused(413, "The request is too large.")
        return int(length)

    def _carefully(self, answer: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        """`answer`, which has an answer also when it fails."""

        async def careful(request: Request, **parts: str) -> Response:
            try:
                return await answer(request, **parts)
            except StoreError as error:
                self.log.warning("a page could not be answered: %s", error)
                return html_page(
                    503, "Not now", "Nothing can be stored or read just now. Try again in a while.",
                    headers={"Retry-After": "60"},
                )  # fmt: skip
            except Exception as error:  # G5: whatever was sent, others are served
                self.log.exception("a page failed: %s", error)
                return html_page(500, "That failed", "Something went wrong here. The log of edgeq says what.")

        return careful


class _Reply:
    """What microdot writes a response to."""

    def __init__(self) -> None:
        self.octets = bytearray()

    async def awrite(self, octets: bytes) -> None:
        self.octets += octets


async def _not_found(request: Request) -> Response:
    return html_page(404, "Not found", "There is no such page.")


async def _not_allowed(request: Request) -> Response:
    return html_page(405, "Not allowed", "That can't be done here.")
