"""The store on one SQLite file. See store.Store for what can be relied on."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import peewee as pw

from ...clock import Clock
from ...errors import StoreError, StoreMissing, StoreUnavailable
from ...telemetry.metrics import Metrics
from ..files import FileLock, damaged, disk, unmark_suspect
from ..making import ensure, need_folder
from ..ownership import Alone
from ..schema import forget_statistics, migrate, store_id
from ..store import Health, Row, Signal, Statement, Store, Unit, render
from ..watch import Watch
from ..writer import Writer
from . import faults, patience
from .engine import LOG_BYTES_KEPT, SqliteEngine, log_path
from .replace import aside_name, undo

log = logging.getLogger("edgeq.store")
T = TypeVar("T")

RECOVERY_SECONDS = 20.0
"""For how long at most a start goes on taking over what edgeq goes by; what is left comes later."""


class SqliteStore(Store):
    """See store.Store. `path` is the database file; its folder must exist.

    With `exclusive` (the appliance) the store refuses a file that another appliance holds, makes the file when it
    isn't there, and puts a damaged one aside: see `recovery`. Without (commands that look or add something beside a
    running appliance) the file must be there, unless it may be made with `make` (workers that may start before it).
    """

    def __init__(
        self,
        path: str,
        *,
        metrics: Metrics,
        clock: Clock,
        durability: str = "full",
        commit_interval_seconds: float = 0.0,
        exclusive: bool = True,
        make: bool = False,
        log_bytes_kept: int = LOG_BYTES_KEPT,
        room_kept: int = 0,
    ) -> None:
        self.path = self.place = path
        self._read_only_uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro"
        self.signal = Signal()
        self.ownership = Alone()
        self._exclusive = exclusive
        self._make = make
        self._clock = clock
        self._database = pw.SqliteDatabase(None)
        self._watch = Watch(log_path(path))
        self._engine = SqliteEngine(path, durability, self._database, self._watch, log_bytes_kept, room_kept)
        self._writer = Writer(self._engine, self.signal, metrics, clock, commit_interval_seconds)
        self._lock = FileLock(path + "-lock")
        self._reader: aiosqlite.Connection | None = None
        self._reading = asyncio.Lock()
        self._is_open = False
        self._id = ""

    @property
    def health(self) -> Health:
        """See Store.health."""
        return self._writer.health

    @property
    def busy(self) -> bool:
        """See Store.busy."""
        return self._writer.busy

    @property
    def fault(self) -> StoreError | None:
        """See Store.fault. The file was removed or replaced, or SQLite has said that it is damaged."""
        if self._engine.gone:
            return StoreError(
                f"{self.path} was removed or replaced while edgeq ran",
                hint="systemd starts edgeq again by itself, on the file that is there then",
            )
        if self._engine.damaged:
            return StoreError(
                f"{self.path} is damaged; it is put aside at the next start of edgeq run",
                hint="systemd starts edgeq again by itself",
            )
        return None

    def disk(self) -> dict[str, int]:
        """See Store.disk."""
        return disk(self.path) | {"wal_bytes_kept": self._engine.log_bytes_kept}

    @property
    def id(self) -> str:
        """See Store.id."""
        return self._id

    async def open(self) -> None:
        """See Store.open."""
        try:
            await asyncio.to_thread(self._prepare)
            self._writer.start()
            self._reader = await self._open_reader()
            self._is_open = True
        except StoreUnavailable as error:
            self._writer.unavailable(str(error))
            raise
        except BaseException:
            await self.close()
            raise

    def _prepare(self) -> None:
        if not self._exclusive and not self._make and not os.path.exists(self.path):
            raise StoreMissing(
                f"there is no database at {self.path}",
                hint="start edgeq once, or name the right configuration with -c",
            )
        need_folder(self.path)
        if self._exclusive:
            self._lock.acquire()
        try:
            if not self._exclusive:
                self._begin()
                return
            self._begin_anew_if(damaged)
            try:
                self._begin()
            except sqlite3.DatabaseError as error:
                reason = str(error)  # a file that was closed in peace isn't looked at as a whole before
                if faults.code(error) not in faults.DAMAGED or self.quarantined is not None:
                    raise
                self._engine.disconnect()
                self._begin_anew_if(lambda path: reason)
                self._begin()
        except sqlite3.Error as error:
            raise self._engine.refusal(error) from error

    def _begin(self) -> None:
        if self._make and not self._exclusive:
            ensure(self.path)
        else:
            migrate(self.path, may_change=self._exclusive)
        forget_statistics(self.path)
        self._engine.connect()
        self._id = store_id(self.path)

    def _begin_anew_if(self, damage: Callable[[str], str]) -> None:
        """Put the file aside if there is `damage`; what edgeq goes by is taken over from it."""
        try:
            undo(self.path)
            reason = damage(self.path)
            if not reason:
                return
            from .recover import begin_anew  # most never need it

            aside = aside_name(self.path, "damaged", self._clock.now())
            self.recovery = begin_anew(self.path, aside, RECOVERY_SECONDS)
        except OSError as error:
            raise StoreUnavailable(
                f"{self.path} is damaged and can't be put aside: {error}", hint="look at the rights of its folder"
            ) from error
        self.quarantined = aside
        unmark_suspect(self.path)
        log.error(
            "%s is damaged (%s): put aside as %s; recovered: %s", self.path, reason, aside, self.recovery.summary()
        )

    async def _open_reader(self) -> aiosqlite.Connection:
        reader = await aiosqlite.connect(
            self._read_only_uri, uri=True, timeout=patience.BUSY_SECONDS, isolation_level=None
        )
        await reader.execute("PRAGMA cache_size=-1024")
        return reader

    async def _close_reader(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await reader.close()

    async def close(self) -> None:
        """See Store.close."""
        # The writing connection goes last: only the last one to go can fold the log into the file.
        async with self._reading:
            self._is_open = False
            await self._close_reader()
        await self._writer.close()
        await asyncio.to_thread(self._engine.disconnect)
        self._watch.close()
        self._lock.release()

    def submit(self, unit: Unit[T], *, shared: bool = False) -> asyncio.Future[T]:
        """See Store.submit. Nobody else can write meanwhile, shared or not."""
        return self._writer.submit(unit)

    async def relieve(self, unit: Unit[T]) -> T:
        """See Store.relieve."""
        done: T = await self._writer.relieve(unit)
        return done

    def submit_lazily(self, unit: Unit[object], within_seconds: float) -> None:
        """See Store.submit_lazily."""
        self._writer.submit_lazily(unit, within_seconds)

    async def read(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Store.read."""
        if isinstance(query, Statement):
            text, values = query.text(self._database), params
        else:
            text, values = render(self._database, query)
        async with self._reading:
            if not self._is_open:
                raise StoreUnavailable("the store is closed")
            try:
                if self._engine.read_only:
                    # While one connection holds on to the shared memory as it was, the writer can't have it otherwise.
                    self._engine.read_only = False
                    await self._close_reader()
                if self._reader is None:
                    self._reader = await self._open_reader()
                return [tuple(row) for row in await self._reader.execute_fetchall(text, values)]
            except sqlite3.Error as error:
                raise StoreError(self._engine.unavailable(error) or f"{self.path}: {error}") from error
