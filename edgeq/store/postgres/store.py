"""The store on PostgreSQL. See store.Store for what can be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import peewee as pw
import psycopg

from ...clock import Clock
from ...errors import StoreError, StoreUnavailable
from ...telemetry.metrics import Metrics
from ..store import Health, Row, Signal, Statement, Store, Unit, render
from ..writer import Writer
from . import faults, schema
from .connecting import READS, connect_async, cut, place
from .engine import PostgresEngine
from .session import Session
from .transaction import DIALECT

T = TypeVar("T")

_HUNG_SECONDS = 3.0  # at the end, the server has to answer within these

UNSAFE = {  # settings of the server, and what comes of each when it is off
    "fsync": "the server's fsync is off: a power cut may lose what was acknowledged, and damage the database",
    "full_page_writes": "the server's full_page_writes is off: a power cut may damage the database",
    "synchronous_commit": "the server's synchronous_commit is off: edgeq waits for the disk all the same, unless "
    "durability is normal, but other programs that write there don't",
}
_SAFETY = pw.SQL(f"SELECT name, setting FROM pg_settings WHERE name IN {tuple(UNSAFE)}")  # noqa: S608


class PostgresStore(Store):
    """The database at `url`; `part` names the program to the server.

    With `make`, its tables are made and brought up to date; without, they must be there. Without `session`, the commits
    of others aren't noticed, and nothing can be owned. `database_clock`: see PostgresEngine.
    """

    def __init__(
        self,
        url: str,
        *,
        metrics: Metrics,
        clock: Clock,
        part: str = "",
        durability: str = "full",
        commit_interval_seconds: float = 0.0,
        make: bool = True,
        database_clock: bool = True,
        session: bool = True,
    ) -> None:
        self.signal = Signal()
        self.place = place(url)
        self._url = url
        self._part = part
        self._make = make
        self._engine = PostgresEngine(url, f"{part} writer".strip(), durability, database_clock=database_clock)
        self._writer = Writer(self._engine, self.signal, metrics, clock, commit_interval_seconds)
        self._session = Session(
            url, part, self.signal, self._engine.name, self.read, silent=lambda: cut(self._reader), clock=clock
        )
        self._with_session = session
        self.ownership = self._session.ownership
        self._reader: psycopg.AsyncConnection[Any] | None = None
        self._reading = asyncio.Lock()
        self._is_open = False
        self._id = ""

    @property
    def health(self) -> Health:
        """See Store.health."""
        health = self._writer.health
        return (self._session.silence or self._session.trouble or health) if health.ok else health

    @property
    def busy(self) -> bool:
        """See Store.busy."""
        return self._writer.busy

    @property
    def id(self) -> str:
        """See Store.id."""
        return self._id

    async def warnings(self) -> list[str]:
        """See Store.warnings."""
        found: dict[str, str] = dict(await self.read(_SAFETY))
        return [f"{self.place}: {text}" for name, text in UNSAFE.items() if found[name] == "off"]

    async def open(self) -> None:
        """See Store.open."""
        preparing = asyncio.create_task(asyncio.to_thread(self._prepare))
        try:
            await asyncio.shield(preparing)
            self._writer.start()
            self._is_open = True
            if self._with_session:
                self._session.start()
        except StoreUnavailable as error:
            self._writer.unavailable(str(error))
            raise
        except BaseException:
            # A thread can't be cancelled, and what it connects is to be closed. It ends by itself (ANSWER_SECONDS).
            await asyncio.gather(preparing, return_exceptions=True)
            await self.close()
            raise

    def _prepare(self) -> None:
        try:
            self._id = schema.prepare(self._url, may_change=self._make)
            self._engine.connect()
        except psycopg.Error as error:
            raise faults.refusal(error, self.place) from error

    async def close(self) -> None:
        """See Store.close."""
        self._is_open = False
        hung = asyncio.get_running_loop().call_later(_HUNG_SECONDS if self._session.silence is None else 0.0, self._cut)
        await self._writer.close()
        async with self._reading:
            await self._close_reader()
        hung.cancel()
        await self._session.stop()
        await asyncio.to_thread(self._engine.disconnect)

    def _cut(self) -> None:
        self._engine.cut()
        cut(self._reader)

    async def _close_reader(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.close()

    def submit(self, unit: Unit[T], *, shared: bool = False) -> asyncio.Future[T]:
        """See Store.submit."""
        return self._writer.submit(unit, shared=shared)

    def submit_lazily(self, unit: Unit[object], within_seconds: float) -> None:
        """See Store.submit_lazily."""
        self._writer.submit_lazily(unit, within_seconds)

    async def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Store.read."""
        if isinstance(query, Statement):
            text, values = query.text(DIALECT), params
        else:
            text, values = render(DIALECT, query)
        async with self._reading:
            if not self._is_open:
                raise StoreUnavailable("the store is closed")
            try:
                return await self._fetch(text.encode(), values)
            except psycopg.Error as error:
                said = faults.reason(error, self.place)
                kind = StoreUnavailable if said else StoreError
                raise kind(said or f"{self.place}: {error}") from error

    async def _fetch(self, text: bytes, values: Sequence[Any]) -> list[Row]:
        """What a query finds, on a new connection if the one there was turns out to be lost."""
        if self._reader is not None and not self._reader.closed:
            try:
                return await (await self._reader.execute(text, values)).fetchall()
            except psycopg.OperationalError:
                if not self._reader.closed:
                    raise
        await self._close_reader()
        if not self._is_open:
            raise StoreUnavailable("the store is closed")
        if self._session.silence is not None:
            raise StoreUnavailable(self._session.silence.reason)
        reader = await connect_async(self._url, f"{self._part} reader".strip(), READS, opened=self._opened)
        return await (await reader.execute(text, values)).fetchall()

    def _opened(self, reader: psycopg.AsyncConnection[Any]) -> None:
        self._reader = reader
        if not self._is_open:  # the time to be cut may have passed
            cut(reader)
