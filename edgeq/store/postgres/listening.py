"""Waiting for what others commit on PostgreSQL, in a program: a thread listens for all that wait, while any does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import psycopg

from ...backoff import Backoff
from ..store import FOREIGN_NET_SECONDS
from .connecting import READS, connect
from .engine import CHANNEL

_REST_SECONDS = 0.02  # between two times of hearing: however many commits others make, we wake for so many only
_LOOK_SECONDS = 1.0
_AGAIN = Backoff(0.2, 2.0, jitter=0.5)
_ENDS = {"finished", "cancelled"}


class Listener:
    """Calls those that wait whenever a job may have ended; also when it was connected, as nobody knows what was told
    before."""

    def __init__(self, url: str, part: str) -> None:
        self._url = url
        self._part = f"{part} listening"
        self._lock = threading.Lock()
        self._waiting: set[Callable[[], None]] = set()
        self._thread: threading.Thread | None = None

    def add(self, wake: Callable[[], None]) -> None:
        """Call `wake`, in another thread, from now on."""
        with self._lock:
            self._waiting.add(wake)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edgeq-listener", daemon=True)
                self._thread.start()

    def remove(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._waiting.discard(wake)

    def _run(self) -> None:
        attempt = 0
        while self._needed():
            try:
                with connect(self._url, self._part, READS) as connection:
                    attempt = 0
                    self._listen(connection)
            except psycopg.Error:
                attempt += 1
                time.sleep(_AGAIN.delay(attempt))

    def _needed(self) -> bool:
        with self._lock:
            if not self._waiting:
                self._thread = None
            return bool(self._waiting)

    def _listen(self, connection: psycopg.Connection[tuple[int]]) -> None:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        [(store,)] = connection.execute(b"SELECT 'events'::regclass::oid::bigint").fetchall()
        self._wake()
        while self._waiting:
            notes = list(connection.notifies(timeout=_LOOK_SECONDS, stop_after=1))
            told = [note.payload.split() for note in notes]
            if any(words and words[0] == str(store) and not _ENDS.isdisjoint(words) for words in told):
                self._wake()
                time.sleep(_REST_SECONDS)

    def _wake(self) -> None:
        with self._lock:
            for wake in self._waiting:
                wake()


class PostgresListening:
    """See listening.Listening."""

    def __init__(self, listener: Listener, timeout_seconds: float | None) -> None:
        self._listener = listener
        self._until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._heard = threading.Event()
        self._woken: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
            self._woken = asyncio.Event()
        listener.add(self._wake)

    def _wake(self) -> None:
        self._heard.set()
        if self._loop is not None and self._woken is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    @property
    def seconds(self) -> float:
        """See Listening.seconds."""
        net = FOREIGN_NET_SECONDS
        return net if self._until is None else min(net, self._until - time.monotonic())

    def wait(self) -> None:
        """See Listening.wait."""
        self._heard.wait(max(0.0, self.seconds))
        self._heard.clear()

    async def heard(self) -> None:
        """See Listening.heard."""
        assert self._woken is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self.seconds)):
                await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        """See Listening.close."""
        self._listener.remove(self._wake)
