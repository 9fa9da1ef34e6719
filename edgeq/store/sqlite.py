"""The store on one SQLite file: write-ahead log, one writing connection, readers of their own.

`synchronous=FULL` makes a commit survive a power cut. Checkpoints are made between commits (one inside a commit is a
stall that the intake feels), and only while nobody else can write: versions 3.7.0 to 3.51.2 of SQLite can damage a
database when one connection begins the log anew at the moment at which another one checkpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiosqlite
import peewee as pw

from ..clock import Clock
from ..errors import StoreError, StoreMissing, StoreUnavailable
from ..telemetry.metrics import Metrics
from .files import FileLock, damaged, disk, mark_suspect, quarantine
from .inserts import Inserts
from .making import ensure, need_folder
from .ownership import Alone
from .schema import forget_statistics, migrate, store_id
from .store import Health, Row, Signal, Statement, Store, Tx, Unit, render
from .tables import Jobs
from .watch import Watch
from .writer import Writer

log = logging.getLogger("edgeq.store")
T = TypeVar("T")

BUSY_SECONDS = 5.0
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.0005, 0.005
_CHECKPOINT_COMMITS = 500
_CHECKPOINT_ROWS = 8000
_WAL_BYTES_KEPT = 16 * 2**20
_FOREIGN_WEIGHT = 20  # once others have made the log that large, each time that we notice them counts like this many
# SQLite takes the greatest id there is, plus one, which can be that of a job that was removed.
_FIRST_JOB_ID = "(SELECT last_id + 1 FROM removed_jobs WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id > last_id))"

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another program",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database file or its folder is read-only",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CANTOPEN: "the database file can't be opened",
    sqlite3.SQLITE_PROTOCOL: "the database is locked by another program",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_PERM: "the database file may not be used by this user",
    sqlite3.SQLITE_AUTH: "the database file may not be used by this user",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the database file is damaged",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HINTS = {
    sqlite3.SQLITE_BUSY: "end the program that keeps a transaction open on it, or make its transactions shorter",
    sqlite3.SQLITE_FULL: "make room on it",
    sqlite3.SQLITE_CORRUPT: "edgeq run puts it aside at its next start, and begins a new one",
    sqlite3.SQLITE_NOTADB: "give the path of the file that store.url names",
}
_HINT = "look at the rights of the file and its folder, and at the space left on the disk"
# What keeps a file from being opened until somebody changes its rights or puts it aside.
_STAYS = (*_DAMAGED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class FileGone(StoreError):
    """The file at the database's path is no longer the one that is open."""


class Executor(Protocol):
    """What a transaction needs of a connection: that of sqlite3, with rows as tuples."""

    def execute(self, text: str, parameters: Sequence[Any] = ..., /) -> sqlite3.Cursor:
        """See sqlite3.Connection.execute."""


class SqliteTx(Tx):
    """A transaction on a connection."""

    def __init__(self, connection: Executor, database: pw.Database) -> None:
        super().__init__()
        self._connection = connection
        self._database = database
        self._inserts = Inserts("?", {Jobs: _FIRST_JOB_ID})

    def _execute(self, query: Statement | pw.Node, params: Sequence[Any]) -> sqlite3.Cursor:
        if isinstance(query, Statement):
            return self._connection.execute(query.text(self._database), params)
        return self._connection.execute(*render(self._database, query))

    def run(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> int:
        """See Tx.run."""
        return self._execute(query, params).rowcount

    def rows(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Tx.rows."""
        return self._execute(query, params).fetchall()

    def insert(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> int:
        """See Tx.insert.

        Many rows go into one statement: Python lets go of its lock once for each statement, and while the event loop
        is busy the writer gets it back only after the switch interval. With `executemany` that is once for each row,
        which took inserting from 150,000 rows a second to 400.
        """
        statements = self._inserts.of(table, columns, rows, "ON CONFLICT DO NOTHING")
        return sum(max(0, self._connection.execute(*each).rowcount) for each in statements)

    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """See Tx.insert_returning. An id is always greater than those before it, but the order of what a statement
        returns is nobody's promise. A single row does without, for half the time."""
        if len(rows) == 1:
            text = self._inserts.text(table, columns, 1, "")
            return [self._connection.execute(text, rows[0]).lastrowid or 0]
        ids: list[int] = []
        for text, values in self._inserts.of(table, columns, rows, "RETURNING id"):
            ids += sorted([row[0] for row in self._connection.execute(text, values).fetchall()])
        return ids

    def now(self, now: int) -> int:
        """See Tx.now. There is one machine, and one clock."""
        return now

    def alone(self) -> None:
        """See Tx.alone. Whoever writes is."""


class SqliteEngine:
    """The writing connection, used by one thread at a time. See writer.Engine.

    `watch` hears of what others write to the log; without one, nothing is heard. A second connection, the guard, takes
    the lock of those who write now and then for a moment, and writes nothing.
    """

    savepoints = True

    def __init__(self, path: str, durability: str, database: pw.Database, watch: Watch | None = None) -> None:
        self._path = path
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._database = database
        self._watch = watch
        self._connection: sqlite3.Connection | None = None
        self._guard: sqlite3.Connection | None = None
        self._tx: SqliteTx | None = None
        self._data_version = 0
        self._commits = 0
        self._rows_checkpointed = 0
        self.listens = False
        self.damaged = False
        self.gone = False
        self._file = (0, 0)
        self.read_only = False

    def connect(self) -> None:
        """Open the writing connection. Raises sqlite3.Error or FileGone; then there is none."""
        if self._file != (0, 0):
            self._check_file()  # a connection made anew must not make a file anew
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in (
                "journal_mode=WAL",
                f"synchronous={self._synchronous}",
                "wal_autocheckpoint=0",
                f"journal_size_limit={_WAL_BYTES_KEPT}",
                "temp_store=MEMORY",
                "cache_size=-2048",
                "foreign_keys=OFF",
                "busy_timeout=0",  # from now on it is `patiently` that waits
            ):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            # Half set up, it would write without what durability needs.
            connection.close()
            raise
        self._connection = connection
        self._file = _identity(self._path)
        self._tx = SqliteTx(connection, self._database)
        self._rows_checkpointed = 0
        # When it was lost before, others may have committed meanwhile: any version is a new one then.
        self._data_version = -1 if self._data_version else self._read_data_version()

    def _check_file(self) -> None:
        """Commits to a file that was removed would be acknowledged and lost."""
        if _identity(self._path) != self._file:
            self.gone = True
            raise FileGone(f"the database file was removed or replaced while edgeq ran: {self._path}")

    def disconnect(self) -> None:
        """See Engine.disconnect."""
        for connection in (self._guard, self._connection):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._guard = self._connection = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def connected(self) -> tuple[sqlite3.Connection, SqliteTx]:
        """The connection, made if there is none; outside of a transaction, what it runs stands alone."""
        if self._connection is None or self._tx is None:
            self.connect()
        assert self._connection is not None
        assert self._tx is not None
        self._check_file()
        return self._connection, self._tx

    def begin(self, *, shared: bool = False) -> Tx:
        """See Engine.begin."""
        connection, tx = self.connected()
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        if self._watch is not None:
            self._watch.mute()
        return tx

    def commit(self) -> None:
        """See Engine.commit."""
        self._run("COMMIT")
        self.listen()

    def rollback(self) -> None:
        """See Engine.rollback."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            log.debug("rollback failed: %s", error)
        self.listen()

    def landed(self) -> bool:
        """See Engine.landed. What a file's COMMIT doesn't confirm is rolled back."""
        return False

    def savepoint(self) -> None:
        """See Engine.savepoint."""
        self._run("SAVEPOINT unit")

    def release(self) -> None:
        """See Engine.release."""
        self._run("RELEASE unit")

    def check(self) -> None:
        """See Engine.check. A statement that failed has changed nothing; the rest of its unit can stay."""

    def rollback_to(self) -> None:
        """See Engine.rollback_to."""
        self._run("ROLLBACK TO unit")
        self._run("RELEASE unit")

    def unavailable(self, error: Exception) -> str:
        """See Engine.unavailable."""
        if isinstance(error, FileGone):
            return str(error)
        code = _code(error)
        if code in _DAMAGED:
            self.damaged = True
            if self._file != (0, 0):  # else it may be anything, and isn't ours
                mark_suspect(self._path)
        elif code == sqlite3.SQLITE_READONLY:
            self.read_only = True
        reason = _UNAVAILABLE.get(code, "")
        return f"{reason}: {self._path} ({error})" if reason else ""

    @property
    def ear(self) -> int | None:
        """See Engine.ear."""
        return None if self._watch is None else self._watch.descriptor

    def listen(self) -> None:
        """See Engine.listen."""
        if self._watch is not None:
            self._watch.drain()
            self.listens = self._watch.listen()

    def others_commit(self) -> bool:
        """See Engine.others_commit. Who writes holds a lock from its first change until its commit can be seen."""
        return self._connection is not None and not self._locking_out_others(lambda: None)

    def refusal(self, error: sqlite3.Error) -> StoreError:
        """What to raise for an error of the driver: StoreUnavailable for what may pass."""
        reason = self.unavailable(error)
        kind = StoreUnavailable if reason and _code(error) not in _STAYS else StoreError
        return kind(reason or f"{self._path}: {error}", hint=_HINTS.get(_code(error), _HINT))

    def foreign_commit(self) -> bool:
        """See Engine.foreign_commit. `data_version` changes only by commits of other connections."""
        version = self._read_data_version()
        changed = version != self._data_version
        self._data_version = version
        return changed

    def tend(self, *, foreign: bool = False) -> None:
        """Checkpoint when enough was written since the last time. Never while nothing is written (G9)."""
        connection = self._connection
        if connection is None:
            return
        large = foreign and os.stat(log_path(self._path)).st_size > _WAL_BYTES_KEPT
        self._commits += _FOREIGN_WEIGHT if large else 1
        rows = connection.total_changes
        if self._commits >= _CHECKPOINT_COMMITS or rows - self._rows_checkpointed >= _CHECKPOINT_ROWS:
            checkpoint = "PRAGMA wal_checkpoint(PASSIVE)"
            if self._locking_out_others(lambda: connection.execute(checkpoint).fetchone()):
                self._commits = 0
                self._rows_checkpointed = rows

    def _locking_out_others(self, meanwhile: Callable[[], object]) -> bool:
        """Call `meanwhile` while no other connection can write. False, and no call, if one is writing now."""
        if self._guard is None:
            self._check_file()
            self._guard = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            self._guard.execute("PRAGMA wal_autocheckpoint=0")
        try:
            self._guard.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_BUSY:
                return False
            raise
        try:
            meanwhile()
        finally:
            self._guard.execute("ROLLBACK")
        return True

    def _read_data_version(self) -> int:
        assert self._connection is not None
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _run(self, text: str) -> None:
        assert self._connection is not None
        self._connection.execute(text)


class SqliteStore(Store):
    """See store.Store. `path` is the database file; its folder must exist.

    With `exclusive` (the appliance) the store refuses a file that another appliance holds, makes the file when it
    isn't there, and puts a damaged one aside. Without (commands that look or add something beside a running
    appliance) the file must be there, unless it may be made with `make` (workers that may start before it).
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
        self._engine = SqliteEngine(path, durability, self._database, self._watch)
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
        return disk(self.path)

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
            reason = damaged(self.path)
            if reason:
                self.quarantined = quarantine(self.path, self._clock.now())
                log.error("%s is damaged (%s): put aside as %s, starting empty", self.path, reason, self.quarantined)
        try:
            if self._make and not self._exclusive:
                ensure(self.path)
            else:
                migrate(self.path, may_change=self._exclusive)
            forget_statistics(self.path)
            self._engine.connect()
            self._id = store_id(self.path)
        except sqlite3.Error as error:
            raise self._engine.refusal(error) from error

    async def _open_reader(self) -> aiosqlite.Connection:
        reader = await aiosqlite.connect(self._read_only_uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
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


def patiently(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, which is made again for up to BUSY_SECONDS while another connection writes.

    SQLite's own way is to sleep for longer each time, up to 100 ms. Beside programs that write all the time, that is to
    meet the moment between two of their commits once in minutes.
    """
    waited = 0.0
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or waited >= BUSY_SECONDS:
                raise
        pause = random.uniform(0.5, 1.5) * min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS + waited / 50)  # noqa: S311
        time.sleep(pause)
        waited += pause


def log_path(path: str) -> str:
    """Where SQLite keeps the log of the database at `path`: beside the file itself, wherever links to it stand."""
    return f"{os.path.realpath(path)}-wal"


def _identity(path: str) -> tuple[int, int]:
    """Which file stands at `path`."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _code(error: Exception) -> int:
    """SQLite's primary result code of an error, 0 for what isn't SQLite's."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF if isinstance(error, sqlite3.Error) else 0
