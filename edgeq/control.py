"""A socket beside the database on which a running appliance says how it is.

`edgeq status` asks it for what no table holds: the session's state, the reason why the store takes no commits, the
counters. It only answers; whatever changes something goes through the store. Only the user that runs edgeq (and root)
can connect. A request is one line, the answer one line of JSON; `{"error": …}` says why there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .config.schema import Config
from .errors import EdgeqError
from .events import from_json, to_json
from .store.opening import local_bases

_REQUEST_BYTES_MAX = 4096
_ANSWER_BYTES_MAX = 16 * 2**20
_SECONDS = 10.0

Handler = Callable[[], Awaitable[dict[str, Any]]]

log = logging.getLogger("edgeq.control")


def socket_path(database: str) -> str:
    """Where the appliance on the database file `database` listens."""
    return database + "-control"


class ControlServer:
    """Answers requests by name, one handler each."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._inode = 0

    async def start(self, *, alone: bool = True) -> None:
        """Listen, unless that is so already. When the folder or the disk doesn't allow it, the log says so: the work
        goes on without. `alone`: nobody else runs on this database by this name, and a socket that is there is of one
        that was killed, or has lost the name; otherwise one that somebody listens at is left alone."""
        if self._server is not None:
            return
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _short(self._path) as path:
                if not alone and _in_use(path):
                    listener.close()
                    return
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                before = os.umask(0o177)
                try:
                    listener.bind(path)
                finally:
                    os.umask(before)
                self._inode = os.lstat(path).st_ino
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_REQUEST_BYTES_MAX)
        except OSError as error:
            listener.close()
            log.warning("`edgeq status` can't ask this process: %s: %s", self._path, error.strerror)

    async def stop(self) -> None:
        """Stop listening and remove the socket, unless there is another one's now."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                name = (await reader.readline()).decode("utf-8", "replace").strip()
                writer.write(to_json(await self._answer(name)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # whoever asked is gone, or talks without end; there is nobody to tell
        finally:
            writer.close()

    async def _answer(self, name: str) -> dict[str, Any]:
        handler = self._handlers.get(name)
        if handler is None:
            return {"error": f"there is no request {name[:40]!r}"}
        try:
            return await handler()
        except EdgeqError as error:
            return {"error": str(error)}


class NotAllowed(EdgeqError):
    """The running appliance belongs to another user."""


async def ask_appliance(config: Config) -> dict[str, Any] | None:
    """How the appliance on this machine says that it is; None when none runs. Raises EdgeqError: see `ask`."""
    for base in local_bases(config):
        if (answer := await ask(socket_path(base), "status")) is not None:
            return answer
    return None


async def ask(path: str, name: str) -> dict[str, Any] | None:
    """The answer of the appliance that listens at `path`; None when there is none. Raises NotAllowed, and EdgeqError
    when it gives no sensible answer within 10 seconds."""
    try:
        async with asyncio.timeout(_SECONDS):
            with _short(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=_ANSWER_BYTES_MAX)
            try:
                writer.write(name.encode() + b"\n")
                answer = from_json(await reader.readline())
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise NotAllowed(
            "the running appliance belongs to another user", hint="ask as that user, or with sudo"
        ) from None
    except TimeoutError:
        raise EdgeqError(
            f"the running appliance doesn't answer within {_SECONDS:g}s", hint="look at its log, or restart it"
        ) from None
    except (OSError, ValueError) as error:
        raise EdgeqError(f"the running appliance gives no sensible answer: {error}") from None
    if not isinstance(answer, dict):
        raise EdgeqError(f"the running appliance gives no sensible answer: {answer!r}")
    if "error" in answer:
        raise EdgeqError(f"the running appliance can't say: {answer['error']}")
    return answer


def _in_use(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(path)
        except BlockingIOError:  # so many are calling that the next has to wait
            return True
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """The same place under a short name: a socket's address has room for 107 bytes only."""
    folder = os.open(Path(path).resolve().parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)
