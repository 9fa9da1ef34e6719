"""Connections to PostgreSQL, each with the settings that its work needs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper

from ...errors import StoreError

T = TypeVar("T")

VERSION_MIN = 140000
FROZEN_SECONDS = 4
"""After this time the server ends what a process holds that doesn't answer any more: see `session`."""
LOCK_SECONDS = 5
ANSWER_SECONDS = 10.0
"""A server that lives answers any of the statements that prepare a connection within these, also after a lock."""

_DEFAULTS = {
    "connect_timeout": "5", "keepalives": "1", "keepalives_idle": "5", "keepalives_interval": "2",
    "keepalives_count": "3", "tcp_user_timeout": "10000",
}  # fmt: skip
# What the server knows of a queue's tables is some minutes old: all jobs waited then that are finished now, and it
# would read the whole table for the next one that waits, again and again. For all that it is asked there is an index.
_EACH = (
    "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; SET client_min_messages = 'warning'; "
    "SET idle_session_timeout = 0; SET enable_seqscan = off; SET jit = off"
)
WRITES = (
    f"SET lock_timeout = '{LOCK_SECONDS}s'; SET idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'; "
    "SET statement_timeout = 0; SET plan_cache_mode = force_generic_plan"
)
READS = "SET default_transaction_read_only = on; SET statement_timeout = '60s'"


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """It is lost when the server doesn't answer a statement within `answer_seconds` (None: it may take for ever). The
    kernel of a server that hangs goes on to acknowledge what it is sent."""

    answer_seconds: float | None = ANSWER_SECONDS

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """See psycopg.Connection.wait."""
        if self.answer_seconds is not None:
            gen = self._within(gen, self.answer_seconds)
        return super().wait(gen, *args, **kwargs)

    def _within(self, gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
        until = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # nothing is, several times a second
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server hasn't answered for {seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def connect(url: str, part: str, settings: str, *, answer_seconds: float | None = None) -> Connection:
    """A connection that commits each statement by itself, for `part` of the program. Raises psycopg.Error, StoreError
    when the server is too old."""
    with _nothing_left():
        connection = Connection.connect(autocommit=True, **_parameters(url, part))
    try:
        if connection.info.server_version < VERSION_MIN:
            raise StoreError(
                f"{place(url)} runs PostgreSQL {connection.info.server_version // 10000}",
                hint=f"edgeq needs {VERSION_MIN // 10000} or later",
            )
        _adapt(connection)
        connection.execute(f"{_EACH}; {settings}".encode())
    except BaseException:
        connection.close()
        raise
    connection.answer_seconds = answer_seconds
    return connection


async def connect_async(
    url: str, part: str, settings: str, opened: Callable[[psycopg.AsyncConnection[Any]], None] = lambda connection: None
) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """`connect` for the event loop. `opened` is called before the first statement, which may find no answer."""
    with _nothing_left():
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **_parameters(url, part))
    opened(connection)
    try:
        _adapt(connection)
        await connection.execute(f"{_EACH}; {settings}".encode())
    except BaseException:
        await connection.close()
        raise
    return connection


def cut(connection: psycopg.BaseConnection[Any] | None) -> None:
    """Make what waits for the server fail, now. Any thread may do so. (Cancelling it would wait for the server.)"""
    if connection is not None and not connection.closed:
        with contextlib.suppress(OSError, psycopg.Error):  # it may be closed at this moment
            ours = socket.socket(fileno=os.dup(connection.fileno()))
            with ours:
                ours.shutdown(socket.SHUT_RDWR)


def place(url: str) -> str:
    """Where the database is, for people: without user, password and options."""
    given = conninfo_to_dict(url)
    host = given.get("host") or given.get("hostaddr") or "local socket"
    port = f":{given['port']}" if given.get("port") else ""
    return f"database {given.get('dbname') or 'of the user'} at {host}{port}"


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    """Close the socket of an attempt that fails or is cancelled. psycopg leaves that to the collector of garbage; until
    then a server that is to stop would wait for what we have to say."""
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _parameters(url: str, part: str) -> dict[str, Any]:
    return {**_DEFAULTS, "application_name": f"edgeq {part}"[:63], **conninfo_to_dict(url)}


def _adapt(connection: psycopg.BaseConnection[Any]) -> None:
    """Numbers are of one type, whatever their size: each statement is prepared once."""
    connection.adapters.register_dumper(int, Int8Dumper)
