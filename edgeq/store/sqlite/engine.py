"""The writing connection to SQLite. See writer.Engine."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable

import peewee as pw

from ...errors import StoreError
from ..files import mark_suspect
from ..store import Tx
from ..watch import Watch
from . import faults, patience
from .transaction import SqliteTx

log = logging.getLogger("edgeq.store")

_CHECKPOINT_COMMITS = 500
_CHECKPOINT_ROWS = 8000
LOG_BYTES_KEPT = 16 * 2**20
_LOOK_COMMITS, _LOOK_ROWS = 8, 10  # to ask how long the log is takes a tenth of what a small commit takes
_LOG_BYTES_MORE = 2**20  # a log that readers keep from ending is tried again when it has grown by so much
_LOG_TIMES_LONG, _LOG_TRIES = 4, 3  # so many times as long, and tried so often: somebody reads without an end
_ROOM_AGAIN = 1.5  # times what is kept must be free until it goes on, or it would end with the next commit
_FREE_PAGES = ("freelist_count", "page_size")
_FOREIGN_WEIGHT = 20  # once others have made the log that large, each time that we notice them counts like this many


class SqliteEngine:
    """The writing connection, used by one thread at a time. See writer.Engine.

    `watch` hears of what others write to the log; without one, nothing is heard. A second connection, the guard, takes
    the lock of those who write now and then for a moment, and writes nothing.

    The log doesn't become much longer than `log_bytes_kept`, and isn't shorter again, unless somebody reads on and on:
    what was written since such a reading began stays in the log, however long that becomes, until it ends.

    The last `room_kept` bytes of the disk are for units that make room.
    """

    savepoints = True

    def __init__(
        self,
        path: str,
        durability: str,
        database: pw.Database,
        watch: Watch | None = None,
        log_bytes_kept: int = LOG_BYTES_KEPT,
        room_kept: int = 0,
    ) -> None:
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
        self._unlooked = self._rows_looked = 0
        self.log_bytes_kept = log_bytes_kept
        self._log_path = log_path(path)
        self._folder = os.path.dirname(self._log_path)
        self._room_kept = room_kept
        self._lacked_room = False
        self._log_bytes_next = log_bytes_kept
        self._log_tries = 0
        self._said_long = False
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
            timeout=patience.BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in (
                "journal_mode=WAL",
                f"synchronous={self._synchronous}",
                "wal_autocheckpoint=0",
                f"journal_size_limit={self.log_bytes_kept}",
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
        self._rows_checkpointed = self._rows_looked = 0
        # When it was lost before, others may have committed meanwhile: any version is a new one then.
        self._data_version = -1 if self._data_version else self._read_data_version()

    def _check_file(self) -> None:
        """Commits to a file that was removed would be acknowledged and lost."""
        if _identity(self._path) != self._file:
            self.gone = True
            raise faults.FileGone(f"the database file was removed or replaced while edgeq ran: {self._path}")

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
        patience.patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
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
        code = faults.code(error)
        if code in faults.DAMAGED:
            self.damaged = True
            if self._file != (0, 0):  # else it may be anything, and isn't ours
                mark_suspect(self._path)
        elif code == sqlite3.SQLITE_READONLY:
            self.read_only = True
        return faults.reason(error, self._path)

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
        self.unavailable(error)
        return faults.refusal(error, self._path)

    def foreign_commit(self) -> bool:
        """See Engine.foreign_commit. `data_version` changes only by commits of other connections."""
        version = self._read_data_version()
        changed = version != self._data_version
        self._data_version = version
        return changed

    def lacks_room(self) -> str:
        """See Engine.lacks_room. On a disk that is full to the last byte nothing could be deleted, either: that, too,
        is written to the log first. Pages that are free in the file count as free."""
        if not self._room_kept:
            return ""
        try:
            there = os.statvfs(self._folder)
        except OSError:
            return ""
        kept = self._room_kept * _ROOM_AGAIN if self._lacked_room else self._room_kept
        free = there.f_bavail * there.f_frsize
        if free < kept:
            connection, _ = self.connected()
            (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {what}").fetchone() for what in _FREE_PAGES)
            free += pages * page_bytes
        self._lacked_room = free < kept
        if not self._lacked_room:
            return ""
        return f"the disk is full: the last {self._room_kept // 1024} KiB of it are kept for deleting: {self._path}"

    def tend(self, *, foreign: bool = False) -> None:
        """Checkpoint when enough was written since the last time. Never while nothing is written (G9)."""
        connection = self._connection
        if connection is None:
            return
        rows = connection.total_changes
        self._unlooked += 1
        if not foreign and self._unlooked < _LOOK_COMMITS and rows - self._rows_looked < _LOOK_ROWS:
            return
        self._commits += self._unlooked - 1
        self._unlooked, self._rows_looked = 0, rows
        size = os.stat(self._log_path).st_size
        if size <= self.log_bytes_kept:
            self._log_bytes_next, self._log_tries, self._said_long = self.log_bytes_kept, 0, False
        self._commits += _FOREIGN_WEIGHT if foreign and size > self.log_bytes_kept else 1
        if (
            self._commits >= _CHECKPOINT_COMMITS
            or rows - self._rows_checkpointed >= _CHECKPOINT_ROWS
            or size > self._log_bytes_next
        ):
            checkpoint = "PRAGMA wal_checkpoint(PASSIVE)"
            if self._locking_out_others(lambda: connection.execute(checkpoint).fetchone()):
                self._commits = 0
                self._rows_checkpointed = rows
                self._log_bytes_next = max(self.log_bytes_kept, size + _LOG_BYTES_MORE)
                self._log_tries += size > self.log_bytes_kept
        long = size > _LOG_TIMES_LONG * self.log_bytes_kept and self._log_tries >= _LOG_TRIES
        if long and not self._said_long:
            self._said_long = True
            log.warning(
                "the log of the database has grown to %d MiB, because another program reads without an end: %s. It "
                "becomes shorter when that transaction ends.",
                size // 2**20,
                self._log_path,
            )

    def _locking_out_others(self, meanwhile: Callable[[], object]) -> bool:
        """Call `meanwhile` while no other connection can write. False, and no call, if one is writing now."""
        if self._guard is None:
            self._check_file()
            self._guard = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            self._guard.execute("PRAGMA wal_autocheckpoint=0")
        try:
            self._guard.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if faults.code(error) == sqlite3.SQLITE_BUSY:
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
