"""A socket beside the database on which a running appliance says how it is.

`edgeq status` asks it for what no table holds: the session's state, the reason why the store takes no commits, the
counters. It only answers; whatever changes something goes through the store. Only the user that runs edgeq (and root)
can connect. A request is one line, the answer one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import EdgeqError
from .events import from_json, to_json

_REQUEST_BYTES_MAX = 4096
_ANSWER_BYTES_MAX = 16 * 2**20
_SECONDS = 10.0

Handler = Callable[[], Awaitable[Any]]


def socket_path(database: str) -> str:
    """Where the appliance on the database file `database` listens."""
    return database + "-control"


class ControlServer:
    """Answers requests by name, one handler each."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the folder doesn't allow it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        with _short(self._path) as path:
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=_REQUEST_BYTES_MAX)
            finally:
                os.umask(before)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                name = (await reader.readline()).decode("utf-8", "replace").strip()
                handler = self._handlers.get(name)
                answer = {"error": f"unknown request {name[:40]!r}"} if handler is None else await handler()
                writer.write(to_json(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError, EdgeqError):
            pass  # whoever asked is gone or talks nonsense; there is nobody to tell
        finally:
            writer.close()


async def ask(path: str, name: str) -> Any:
    """The answer of the appliance that listens at `path`; None when there is none. Raises EdgeqError when it may not be
    asked, or gives no sensible answer."""
    try:
        with _short(path) as short:
            reader, writer = await asyncio.open_unix_connection(short, limit=_ANSWER_BYTES_MAX)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise EdgeqError(
            "the running appliance belongs to another user", hint="ask as that user, or with sudo"
        ) from None
    try:
        async with asyncio.timeout(_SECONDS):
            writer.write(name.encode() + b"\n")
            return from_json(await reader.readline())
    except (OSError, TimeoutError, ValueError) as error:
        raise EdgeqError(f"the running appliance doesn't answer: {error}") from None
    finally:
        writer.close()


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """The same place under a short name: a socket's address has room for 107 bytes only."""
    folder = os.open(Path(path).resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)
