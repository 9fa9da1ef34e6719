"""A broker that does whatever a test tells it to: for what no real one does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from support.packets import connack, packet, suback

Packet = tuple[int, bytes]
"""Head byte and body."""


class Line:
    """One connection, seen from the broker's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, version5: bool) -> None:
        self.version5 = version5
        self._reader = reader
        self._writer = writer

    async def read(self) -> Packet:
        """The next packet from the client."""
        head = (await self._reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, await self._reader.readexactly(length)

    async def expect(self, kind: int) -> Packet:
        """The next packet of type `kind` (its upper four bits); others are passed over, messages acknowledged."""
        while True:
            head, body = await self.read()
            if head & 0xF0 == kind:
                return head, body
            await self.acknowledge(head, body)

    async def acknowledge(self, head: int, body: bytes) -> None:
        """Answer a packet if it is a message at QoS 1."""
        if head & 0xF0 == 0x30 and head & 6:
            size = int.from_bytes(body[:2], "big")
            await self.send(b"\x40\x02" + body[2 + size : 4 + size])

    async def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Close the connection as a broker does that hasn't read all that came."""
        line = self._writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def welcome(self, *, session_present: bool = False) -> None:
        """Take the CONNECT and accept it."""
        await self.expect(0x10)
        await self.send(connack(session_present=session_present, version5=self.version5))

    async def subscribed(self, codes: bytes = b"\1") -> Packet:
        """Take the SUBSCRIBE and answer it."""
        head, body = await self.expect(0x80)
        await self.send(suback(int.from_bytes(body[:2], "big"), codes, version5=self.version5))
        return head, body

    async def serve(self) -> None:
        """Acknowledge whatever is published, and answer pings, until the client goes."""
        while True:
            head, body = await self.read()
            await self.acknowledge(head, body)
            if head & 0xF0 == 0xC0:
                await self.send(packet(0xD0, b""))


class FakeBroker:
    """Runs `scripts` for the first, second, ... connection, the last one for all that follow.

    Use it in an `async with` block. The connection is closed when its script returns.
    """

    def __init__(
        self, *scripts: Callable[[Line], Awaitable[None]], version5: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = 0
        self.connections = 0
        self.errors: list[BaseException] = []
        self._scripts = scripts
        self._version5 = version5
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """For `mqtt.url`."""
        return f"mqtt{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeBroker:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.errors, self.errors

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        try:
            await script(Line(reader, writer, version5=self._version5))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went first, or the test is over
        except AssertionError as error:
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
