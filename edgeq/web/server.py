"""The HTTP server: pages for people, and an interface for programs, on an address that is configured.

What can be relied on, whatever is sent to it:

- A request has HEAD_BYTES_MAX of head and BODY_BYTES_MAX of body (more where a page gives more room to who may use it),
  is here within READ_SECONDS and answered within ANSWER_SECONDS; else it is refused. It is read whole before anybody
  looks at it.
- At most CONNECTIONS_MAX are served at once, fewer where the process may have few descriptors, most of which are for
  the work. Others are refused at once and, when there are many of them, sent away without a word. Each connection is
  for one request. An answer that goes on, of which there are few at once, ends with its connection.
- Who sends more than is read gets the answer all the same: what is left over of it is thrown away for a while.
- Whoever gets a page is told not to keep it, not to show it in a frame, and to run nothing that stands in it. An
  error of ours shows nothing of what is inside.

There is no TLS: it is meant for an address that only this machine, or a trusted network, can reach, or for a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from microdot import Microdot, Request, Response

from ..clock import Clock
from ..config.checks import address
from ..errors import EdgeqError, StoreError
from ..service import Service
from .reading import BODY_BYTES_MAX, HEAD_BYTES_MAX, Received, Unread, read_request
from .replies import Refusal, Stream, refused

ANSWER_SECONDS = 20.0
WRITE_SECONDS = 20.0
CONNECTIONS_MAX = 32
DESCRIPTORS_A_CONNECTION = 8
LINGER_SECONDS = 10.0
LINGER_BYTES_MAX = 16 * 2**20

_ANY_SIZE = 2**31
_PIECE_BYTES = 64 * 1024


Room = Callable[[Mapping[str, str], str], int]
"""How many bytes of body a request may have, by its headers (their names in lower case) and the address of its
sender."""


class Page(NamedTuple):
    """What `answer` makes of requests to `path`, in which `<name>` stands for a part that it is given. `room` is asked
    about requests with more than BODY_BYTES_MAX of body; None: they are refused."""

    path: str
    methods: tuple[str, ...]
    answer: Callable[..., Awaitable[Response]]
    room: Room | None = None


class WebServer(Service):
    """Serves `pages` on `listen` (see checks.address)."""

    def __init__(self, listen: str, clock: Clock, pages: Iterable[Page]) -> None:
        super().__init__("web", clock)
        self._listen = listen
        self._app = Microdot()
        self._app.options_handler = None  # type: ignore[assignment]
        self._app.errorhandler(404)(_not_found)
        self._app.errorhandler(405)(self._not_allowed)
        self._rooms: dict[str, Room] = {}
        # How much may come is decided in `reading`, before it is read.
        Request.max_content_length = Request.max_body_length = _ANY_SIZE
        Request.max_readline = HEAD_BYTES_MAX
        for each in pages:
            if each.room is not None:
                self._rooms[each.path] = each.room
            self._app.route(each.path, methods=list(each.methods))(self._carefully(each.answer))
        self._connections: set[asyncio.Task[Any]] = set()
        self._places = _places()

    async def run(self) -> None:
        """See Service. Raises EdgeqError when the address can't be had."""
        host, port = address(self._listen)
        try:
            # So many are accepted before anybody is sent away.
            backlog = max(1, self._places // 2)
            server = await asyncio.start_server(self._serve, host or None, port, limit=_PIECE_BYTES, backlog=backlog)
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
        served = len(self._connections)
        self._connections.add(task)
        try:
            if served >= 2 * self._places:
                return
            response = await self._answer(reader, writer, full=served >= self._places)
            await _send(response, reader, writer)
            await _linger(reader, writer)
        except (TimeoutError, OSError, EOFError):
            pass  # nobody is there any more who could be told
        except asyncio.CancelledError:
            self.log.debug("a request was cut off: edgeq is ending")
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, full: bool) -> Response:
        try:
            received = await read_request(reader, partial(self._room, _client(writer)))
        except Unread as unread:
            return refused(unread.path, unread)
        if full:
            busy = Refusal(503, "Too many are here at once. Try again in a while.", {"Retry-After": "5"})
            return refused(received.path, busy, "Not now")
        request = await self._understood(received, writer)
        if request is None:
            return refused(received.path, Refusal(400, "That is no request that can be understood."))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response: Response = await self._app.dispatch_request(request)
        except TimeoutError:
            late = Refusal(503, "It took too long. Ask for less, or try again in a while.", {"Retry-After": "60"})
            return refused(received.path, late, "Not now")
        response.is_head = request.method == "HEAD"
        return response

    async def _understood(self, received: Received, writer: asyncio.StreamWriter) -> Request | None:
        whole = asyncio.StreamReader(limit=_ANY_SIZE)
        whole.feed_data(received.octets)
        whole.feed_eof()
        try:
            return await Request.create(self._app, whole, writer, writer.get_extra_info("peername"))
        except (ValueError, IndexError, EOFError):
            return None

    def _room(self, client: str, path: str, headers: Mapping[str, str]) -> int:
        room = self._rooms.get(path)
        return BODY_BYTES_MAX if room is None else room(headers, client)

    def _carefully(self, answer: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
        """`answer`, which has an answer also when it fails."""

        async def careful(request: Request, **parts: str) -> Response:
            try:
                return await answer(request, **parts)
            except Refusal as refusal:
                return refused(request.path, refusal)
            except StoreError as error:
                self.log.warning("a page could not be answered: %s", error)
                text = "Nothing can be stored or read just now. Try again in a while."
                return refused(request.path, Refusal(503, text, {"Retry-After": "60"}), "Not now")
            except Exception as error:  # G5: whatever was sent, others are served
                self.log.exception("a page failed: %s", error)
                text = "Something went wrong here. The log of edgeq says what."
                return refused(request.path, Refusal(500, text), "That failed")

        return careful

    async def _not_allowed(self, request: Request) -> Response:
        allowed = self._app.default_options_handler(request)["Allow"].removesuffix(", OPTIONS")
        text = f"That can't be done here, only: {allowed}."
        return refused(request.path, Refusal(405, text, {"Allow": allowed}), "Not allowed")


def _places() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(CONNECTIONS_MAX, descriptors // DESCRIPTORS_A_CONNECTION))


def _client(writer: asyncio.StreamWriter) -> str:
    return str((writer.get_extra_info("peername") or ("",))[0])


async def _send(response: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_head(response))
    if response.is_head or not isinstance(response, Stream):
        await _write(writer, b"" if response.is_head else response.body)
        return
    sending = asyncio.ensure_future(_send_on(response.pieces, writer))
    gone = asyncio.ensure_future(reader.read(1))  # who listens has nothing more to say
    try:
        await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        gone.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)


def _head(response: Response) -> bytes:
    response.complete()
    lines = [f"HTTP/1.1 {response.status_code} {response.reason or ''}"]
    for name, value in response.headers.items():
        lines += [f"{name}: {each}" for each in (value if isinstance(value, list) else [value])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _send_on(pieces: AsyncGenerator[bytes], writer: asyncio.StreamWriter) -> None:
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            await _write(writer, piece)


async def _write(writer: asyncio.StreamWriter, octets: bytes) -> None:
    writer.write(octets)
    async with asyncio.timeout(WRITE_SECONDS):
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what is still being sent: if it were refused, the system would reset the connection, and take the answer
    from who sends."""
    writer.write_eof()
    left = LINGER_BYTES_MAX
    async with asyncio.timeout(LINGER_SECONDS):
        while left > 0 and (piece := await reader.read(_PIECE_BYTES)):
            left -= len(piece)


async def _not_found(request: Request) -> Response:
    return refused(request.path, Refusal(404, "There is no such page."), "Not found")
