"""A database of either kind for tests: what promises hold on one hold on the other.

A test that takes the fixture `database` runs once on each kind. One about files, the log of SQLite, or what damages
them takes `SqliteDatabase(tmp_path)`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from edgeq.clock import Clock
from edgeq.store.postgres.store import PostgresStore
from edgeq.store.sqlite import SqliteStore
from edgeq.store.store import Row, Store, Tx
from edgeq.store.tables import (
    Breakers,
    ContractStates,
    Cursors,
    DeadLetters,
    Events,
    Jobs,
    Limits,
    Notifications,
    Queues,
    Schedules,
    Silences,
    Threads,
)  # fmt: skip
from edgeq.telemetry.metrics import Metrics

from .postgres import Postgres, sql

KINDS = ("sqlite", "postgresql")
_LOCK_SECONDS = 60.0  # for which a commit may hold others up on a disk that stalls


def emptied(tx: Tx) -> None:
    """Nothing is left that was stored: a unit for between two examples on one database."""
    for table in (
        Events, Cursors, Jobs, Queues, Limits, Breakers, Schedules, DeadLetters, Notifications, Threads, Silences,
        ContractStates,
    ):  # fmt: skip
        tx.run(table.delete())


class Database(ABC):
    """Where stores are opened, one after the other or several at once."""

    kind: str
    where: str
    """The file's path, or the URL: with it, `at` finds the database in another process."""

    @abstractmethod
    def store(
        self, *, clock: Clock | None = None, metrics: Metrics | None = None, beside: bool = False, **settings: Any
    ) -> Store:
        """A store on it that isn't open yet: that of an appliance, or of a program `beside` it. `settings` are those
        that all classes of stores have."""

    @abstractmethod
    def fresh(self) -> Database:
        """Another one of the same kind, and empty."""

    @abstractmethod
    def sql(self, text: str, *values: Any) -> list[Row]:
        """What any other program may read or write. Values stand for `?`."""

    def look(self, text: str, *values: Any) -> list[Row]:
        """`sql` that only reads what those who were killed have left, and leaves the recovery to the store."""
        return self.sql(text, *values)

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Meanwhile somebody else holds what every commit needs."""

    @abstractmethod
    def full(self) -> Exception:
        """What the driver raises when there is no room left."""

    @abstractmethod
    def written(self) -> object:
        """What differs from before whenever anything was written to it."""

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncIterator[Store]:
        """A store that is open. For `settings` see `store`."""
        store = self.store(**settings)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class SqliteDatabase(Database):
    """The file `edgeq.db` in `folder`."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.path = self.where = str(folder / "edgeq.db")
        self._folder = folder
        self._numbers = itertools.count(1)

    def store(
        self, *, clock: Clock | None = None, metrics: Metrics | None = None, beside: bool = False, **settings: Any
    ) -> SqliteStore:
        """See Database.store."""
        settings = {"exclusive": not beside, **settings}
        return SqliteStore(self.path, metrics=metrics or Metrics(), clock=clock or Clock(), **settings)

    def fresh(self) -> SqliteDatabase:
        """See Database.fresh."""
        folder = self._folder / f"fresh-{next(self._numbers)}"
        folder.mkdir()
        return SqliteDatabase(folder)

    def sql(self, text: str, *values: Any) -> list[Row]:
        """See Database.sql."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=_LOCK_SECONDS)) as connection:
            return connection.execute(text, values).fetchall()

    def look(self, text: str, *values: Any) -> list[Row]:
        """See Database.look."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=_LOCK_SECONDS)) as connection:
            return connection.execute(text, values).fetchall()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See Database.locked."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=_LOCK_SECONDS)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
            holder.execute("ROLLBACK")

    def full(self) -> Exception:
        """See Database.full."""
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        return error

    def written(self) -> object:
        """See Database.written."""
        found = os.stat(f"{self.path}-wal")
        return found.st_size, found.st_mtime_ns


class PostgresDatabase(Database):
    """The database at `url`. With a clock of the test's own, that one is gone by and not the server's."""

    kind = "postgresql"

    def __init__(self, url: str, server: Postgres | None = None) -> None:
        self.url = self.where = url
        self._known_server = server
        self._others: list[PostgresDatabase] = []

    @property
    def server(self) -> Postgres:
        """Where it is; not for another process, which only has the URL."""
        assert self._known_server is not None
        return self._known_server

    @classmethod
    def on(cls, server: Postgres) -> PostgresDatabase:
        """A new one, to be dropped."""
        return cls(server.fresh_database(_template(server)), server)

    def store(
        self, *, clock: Clock | None = None, metrics: Metrics | None = None, beside: bool = False, **settings: Any
    ) -> Store:
        """See Database.store."""
        clock = clock or Clock()
        settings = {"make": not beside, "database_clock": type(clock) is Clock, **settings}
        return PostgresStore(self.url, metrics=metrics or Metrics(), clock=clock, **settings)

    def fresh(self) -> PostgresDatabase:
        """See Database.fresh."""
        self._others.append(self.on(self.server))
        return self._others[-1]

    def blank(self) -> PostgresDatabase:
        """Another one on which no store was open yet: it hasn't even tables."""
        self._others.append(PostgresDatabase(self.server.fresh_database(), self.server))
        return self._others[-1]

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncIterator[Store]:
        """See Database.opened. It hears of what others commit, and has been woken for that."""
        async with super().opened(**settings) as store:
            assert await store.signal.wait("events", 0, 120.0)
            yield store

    def drop(self) -> None:
        """Remove it, and those that `fresh` and `blank` made."""
        for other in self._others:
            other.drop()
        self.server.drop(self.url)

    def sql(self, text: str, *values: Any) -> list[Row]:
        """See Database.sql."""
        return sql(self.url, text.replace("?", "%s"), values)

    def look(self, text: str, *values: Any) -> list[Row]:
        """See Database.look. The server may still be at what somebody asked for who was killed."""
        deadline = time.monotonic() + 60
        while self.sql(_SESSIONS):
            assert time.monotonic() < deadline, "somebody is connected to it"
            time.sleep(0.005)
        return super().look(text, *values)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See Database.locked."""
        with psycopg.connect(self.url, application_name="holder") as holder:
            holder.execute("SELECT pg_advisory_xact_lock('events'::regclass::oid::bigint)")
            yield

    def full(self) -> Exception:
        """See Database.full."""
        return psycopg.errors.DiskFull("could not extend file: No space left on device")

    def written(self) -> object:
        """See Database.written. Only what writes takes a transaction's number, anywhere on the server."""
        return self.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")


def at(where: str) -> Database:
    """The database that another process calls so."""
    return PostgresDatabase(where) if where.startswith("postgresql:") else SqliteDatabase(Path(where).parent)


@asynccontextmanager
async def postgres_store(url: str, name: str = "here") -> AsyncIterator[PostgresStore]:
    """An open store of a part of that name, which goes by the server's clock."""
    store = PostgresStore(url, metrics=Metrics(), clock=Clock(), part=name)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@functools.cache
def _template(server: Postgres) -> str:
    """The name of a database on which a store was open once: a copy is made faster than the tables are."""
    url = server.fresh_database()

    async def make() -> None:
        store = PostgresStore(url, metrics=Metrics(), clock=Clock())
        await store.open()
        await store.close()

    asyncio.run(make())
    server.unused(url)  # else it can't be copied
    return url.rpartition("/")[2]
