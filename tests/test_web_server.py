"""The server itself: what it refuses is told in the right form, and reaches who still sends; streams end."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.interface import Interface
from support.stores import SqliteDatabase

from edgeq.testing import until
from edgeq.web.live import STREAMS_MAX
from edgeq.web.server import CONNECTIONS_MAX

PIECE = 16 * 1024


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Interface]:
    async with SqliteDatabase(tmp_path).opened() as store, Interface(tmp_path, store) as made:
        yield made


@contextmanager
def connected(web: Interface) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    answer = b""
    while more := connection.recv(65536):
        answer += more
    return answer


def told(answer: bytes) -> tuple[int, str]:
    """The status, and what the JSON says is wrong."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]


async def test_a_refusal_reaches_who_still_sends(web: Interface) -> None:
    size = 8 * 2**20 + 1

    def slow() -> bytes:
        with connected(web) as connection:
            head = f"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode())
            assert select.select([connection], [], [], 60)[0], "the refusal is there before the body"
            for _ in range(0, size, PIECE):
                connection.sendall(b" " * PIECE)
            return rest(connection)

    status, error = told(await asyncio.to_thread(slow))
    assert (status, error) == (413, "The request is too large.")


async def test_what_is_never_read_is_not_waited_for_without_end(
    web: Interface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.web.server.LINGER_BYTES_MAX", 2**20)

    def endless() -> int:
        sent = 0
        with connected(web) as connection:
            connection.sendall(b"POST /api/events HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
            try:
                while sent < 2**30:
                    sent += connection.send(b" " * 2**20)
            except OSError:
                return sent
        return sent

    assert await asyncio.to_thread(endless) < 2**30


@pytest.mark.parametrize(
    ("request_line", "status", "words"),
    [
        (b"GET /api/nothing HTTP/1.1", 404, "no such page"),
        (b"PUT /api/status HTTP/1.1", 405, "only: GET, HEAD"),
        (b"OPTIONS /api/status HTTP/1.1", 405, "only: GET, HEAD"),
        (b"GET /api/%ff%fe HTTP/1.1", 404, "no such page"),
        (b"GET /api/events/%ff HTTP/1.1", 400, "id"),
        (b"GET /api/events?limit=1&limit=2 HTTP/1.1", 400, "more than once"),
        (b"GET /api/events?limt=1 HTTP/1.1", 400, "limt"),
        (b"GET /api/events?a=%ff HTTP/1.1", 400, "understood"),
        (b"GET /api/status", 400, "understood"),
        (b"GET /api/status HTTP/1.1\r\nTransfer-Encoding: chunked", 411, "length"),
        (b"GET /api/status HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6", 400, "understood"),
        (b"GET /api/status?" + b"x" * 9000 + b" HTTP/1.1", 431, "too long"),
        (b"GET /health/more HTTP/1.1", 404, "no such page"),
    ],
)
async def test_errors_of_the_server_are_json_too(web: Interface, request_line: bytes, status: int, words: str) -> None:
    def ask() -> bytes:
        with connected(web) as connection:
            connection.sendall(request_line + b"\r\nHost: localhost\r\n\r\n")
            return rest(connection)

    found, error = told(await asyncio.to_thread(ask))
    assert found == status
    assert words in error


async def test_people_get_a_page(web: Interface) -> None:
    answer = await web.ask("GET", "/nothing")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=UTF-8")


async def test_what_is_not_allowed_says_what_is(web: Interface) -> None:
    assert (await web.ask("DELETE", "/api/events")).headers["Allow"] == "GET, POST, HEAD"


async def test_head_is_get_without_a_body(web: Interface) -> None:
    answer = await web.ask("HEAD", "/api/queues")
    assert (answer.status, answer.said) == (200, "")
    assert int(answer.headers["Content-Length"]) > 10
    endless = await web.ask("HEAD", "/api/stream")
    assert (endless.status, endless.headers["Content-Type"]) == (200, "text/event-stream")


async def test_every_answer_is_strict(web: Interface) -> None:
    for path in ("/api/status", "/api/nothing", "/health", "/metrics", "/api/openapi.json"):
        headers = (await web.ask("GET", path)).headers
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'", path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


async def test_too_many_at_once_are_refused_in_json(web: Interface) -> None:
    crowd = [(await asyncio.open_connection("127.0.0.1", web.port))[1] for _ in range(CONNECTIONS_MAX)]

    async def refused() -> bool:
        answer = await web.ask("GET", "/api/queues")
        return answer.status == 503 and "Too many" in answer.said["error"]

    await until(refused, "a refusal")
    for each in crowd:
        each.close()
    await until(lambda: _is_served(web), "room again")


async def _is_served(web: Interface) -> bool:
    return (await web.ask("GET", "/api/queues")).status == 200


# Streams


class Listener:
    """One who listens to the stream."""

    def __init__(self, web: Interface) -> None:
        self._connection = socket.create_connection(("127.0.0.1", web.port), timeout=60)
        self._connection.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._lines = self._connection.makefile("rb")
        self.head = [line.strip().decode() for line in iter(self._lines.readline, b"\r\n")]

    def event(self) -> dict[str, object]:
        """The next one."""
        for line in self._lines:
            if line.startswith(b"data: "):
                found: dict[str, object] = json.loads(line[6:])
                return found
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


async def test_a_stream_tells_at_once_and_when_something_happens(web: Interface) -> None:
    listener = await asyncio.to_thread(Listener, web)
    assert listener.head[0] == "HTTP/1.1 200 OK"
    assert "Content-Type: text/event-stream" in listener.head
    first = await asyncio.to_thread(listener.event)
    assert first["may_change"] is False
    assert first["store"]["head"] == 0  # type: ignore[index]
    await web.ask("POST", "/api/events", {"type": "a"})
    while (await asyncio.to_thread(listener.event))["store"]["head"] != 1:  # type: ignore[index]
        pass
    listener.close()


async def test_streams_are_few_and_end_with_who_listens(web: Interface) -> None:
    listeners = [await asyncio.to_thread(Listener, web) for _ in range(STREAMS_MAX)]
    refused = await web.ask("GET", "/api/stream")
    assert (refused.status, refused.said["error"][:8]) == (503, f"{STREAMS_MAX} others")
    listeners[0].close()

    async def again() -> Listener | None:
        listener = await asyncio.to_thread(Listener, web)
        if listener.head[0] == "HTTP/1.1 200 OK":
            return listener
        listener.close()
        return None

    listeners[0] = await until(again, "room for another")
    assert (await asyncio.to_thread(listeners[0].event))["running"] is True
    for each in listeners:
        each.close()


async def test_streams_don_t_hold_up_the_end(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path).opened() as store:
        async with Interface(tmp_path, store) as web:
            listener = await asyncio.to_thread(Listener, web)
            await asyncio.to_thread(listener.event)
        assert await asyncio.to_thread(listener._lines.read) in (b"", b"\n")
        listener.close()
