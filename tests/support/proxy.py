"""A network that fails on request: a TCP proxy between a client and a server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

Fate = Literal["passes", "lost", "late", "unanswered"]
"""A piece reaches the server; it doesn't, and the connection is cut; it does, a while after the connection was cut; it
does, and the connection is cut when the server answers."""
LATE_SECONDS = 0.2


class Proxy:
    """Use it in an `async with` block, and connect to `port` instead of the server's.

    `delay_seconds` holds each piece back, in both directions. After `hold`, nothing passes and nothing is closed, as
    behind a router that forgot the connection, until `release`. `cut_after` is the number of bytes that still reach the
    clients before everything is cut, in the middle of a packet if need be. `fate` says of each piece that a client
    sends what becomes of it, and of the connection.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.refuse = False
        self.cut_after: int | None = None
        self.connections = 0
        self.fate: Callable[[bytes], Fate] = lambda data: "passes"
        self._server_port = server_port
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.close()
        self.refuse = True  # who was accepted a moment ago
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection now."""
        for writer in list(self._clients):
            writer.transport.abort()

    def hold(self) -> None:
        """Let nothing pass from now on."""
        self._flowing.clear()

    def release(self) -> None:
        """Let everything pass again."""
        self._flowing.set()

    def inject(self, data: bytes) -> None:
        """Send `data` to the clients as if the server had."""
        for writer in self._clients:
            writer.write(data)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(writer)
        self.connections += 1
        onward: asyncio.StreamWriter | None = None
        try:
            if self.refuse:
                return
            back, onward = await asyncio.open_connection("127.0.0.1", self._server_port)
            pumps = [
                asyncio.create_task(self._pump(reader, onward, writer)),
                asyncio.create_task(self._pump(back, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(writer)
            self._tasks.discard(task)
            ends = [end for end in (writer, onward) if end is not None]
            for end in ends:  # all of them, before this may be cancelled
                end.close()
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter | None = None
    ) -> None:
        """Pass on what `client` sends, or, without, what is sent to it."""
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flowing.wait()
                fate = "passes" if client is None else self.fate(data)
                if client is not None and fate in ("lost", "late"):
                    client.transport.abort()
                if fate == "lost":
                    return
                if fate == "late":
                    await asyncio.sleep(LATE_SECONDS)
                if fate == "unanswered":
                    self.cut_after = 0
                if client is None and self.cut_after is not None:
                    data = data[: self.cut_after]
                    self.cut_after -= len(data)
                sink.write(data)
                await sink.drain()
                if fate == "late":
                    return
                if client is None and self.cut_after == 0:
                    self.cut_after = None
                    return
            await self._flowing.wait()  # what was closed behind it isn't told either
