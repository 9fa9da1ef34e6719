"""One exchange of what blocks (a library, a program) in a thread of its own, with one time limit for all of it.

The libraries' own timeouts begin anew with every byte, so a server that drips keeps them busy for ever. Here the
connection is cut when the time is up, and the library sees it end. What hangs in the name service can't be cut: its
thread is left behind, and gives up before it sends anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated, Protocol

from ...config.checks import between
from ...units import Duration
from .channel import Outcome, Retry

Timeout = Annotated[Duration, between(Duration(0.1), Duration(60))]


class Way(Protocol):
    """What one exchange goes over. `handed_over` is set by the work before it hands the notification over: if it fails
    after that, the notification itself may be the reason."""

    handed_over: bool

    def cut(self) -> None:
        """End it, and let none begin. From any thread; may be repeated."""


class Line:
    """The connection of one exchange, one at a time. See `Way`."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.handed_over = False
        self._lock = threading.Lock()
        self._cut = False
        self._held: socket.socket | None = None

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect; the earlier connection, if there was one, is no longer looked after. Raises OSError, which
        TimeoutError is."""
        connection = socket.create_connection((host, port), self.timeout_seconds)
        with self._lock:
            if self._cut:
                connection.close()
                raise TimeoutError
            if self._held is not None:
                self._held.close()
            # A duplicate shuts down the same connection, whatever TLS makes of the original.
            self._held = connection.dup()
        return connection

    def cut(self) -> None:
        """See Way."""
        with self._lock:
            self._cut = True
            if self._held is not None:
                with contextlib.suppress(OSError):
                    self._held.shutdown(socket.SHUT_RDWR)
                self._held.close()
                self._held = None


async def exchange(work: Callable[[Line], Outcome], timeout_seconds: float) -> Outcome:
    """What `work` returns; `Retry` when it raises OSError, or when the time is up."""
    line = Line(timeout_seconds)
    return await in_thread(lambda: work(line), line, timeout_seconds)


async def in_thread(work: Callable[[], Outcome], way: Way, timeout_seconds: float) -> Outcome:
    """The same for work that goes over `way`, which is cut when the work or the time is over."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def settle(done: Callable[[], None]) -> None:
        if not future.done():
            done()

    def run() -> None:
        try:
            done = partial(future.set_result, work())
        except OSError as error:
            done = partial(future.set_result, _failed(way, why(error)))
        except Exception as error:  # noqa: BLE001 - handed to the task that waits
            done = partial(future.set_exception, error)
        way.cut()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=run, name="edgeq-channel", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await future
    except TimeoutError:
        return _failed(way, f"no answer within {timeout_seconds:g}s")
    finally:
        way.cut()


def _failed(way: Way, reason: str) -> Retry:
    down = not way.handed_over
    return Retry(reason, target_down=down, unreachable=down)


def why(error: OSError) -> str:
    """The reason of a network error, for an operator."""
    return error.strerror or str(error) or type(error).__name__
