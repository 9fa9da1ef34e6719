"""Direct on a file of SQLite. The database is made when it isn't there."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import peewee as pw

from ..errors import StoreError
from . import borrowed
from .direct import Direct
from .making import ensure
from .sqlite import FileGone, SqliteEngine, log_path
from .sqlite.patience import BUSY_SECONDS, patiently
from .store import Row, Statement, Tx, Unit
from .watch import Waiting

log = logging.getLogger("edgeq.store")
T = TypeVar("T")


class SqliteDirect(Direct):
    """The file at `path`."""

    driver_error = sqlite3.Error
    forked = (
        "this process was forked while its parent was connected, and SQLite can't be used here",
        "fork outside of transactions and with os.fork (or multiprocessing), or before the queue is used",
    )
    _engine: SqliteEngine

    def __init__(self, path: str) -> None:
        self._database = pw.SqliteDatabase(None)
        self._orphaned = False
        super().__init__(path)

    def _make_engine(self) -> SqliteEngine:
        return SqliteEngine(self.place, "full", self._database)

    def _make_tables(self) -> None:
        ensure(self.place)

    def _check(self) -> None:
        if self._orphaned:
            raise StoreError(self.forked[0], hint=self.forked[1])

    def _begin(self) -> Tx:
        self._tx()
        return self._engine.begin()

    def _run(self, unit: Unit[T], *, single: bool) -> T:
        if single:
            tx = self._tx()
            result = patiently(lambda: unit(tx))
        else:
            result = unit(self._begin())
            self._engine.commit()
        self._tend()
        return result

    def _commit(self) -> None:
        self._engine.commit()
        self._tend()

    def _tend(self) -> None:
        try:
            self._engine.tend()
        except (sqlite3.Error, OSError) as error:  # the commit is done; the next one will say what is wrong
            log.debug("housekeeping failed: %s", error)

    def _fetch(self, query: Statement | pw.Node, params: Sequence[Any]) -> list[Row]:
        tx = self._tx()
        return patiently(lambda: tx.rows(query, params))

    def _tx(self) -> Tx:
        try:
            return self._engine.connected()[1]
        except FileGone:
            self._take_new_file()
            return self._engine.connected()[1]

    def _take_new_file(self) -> None:
        """Somebody has removed or replaced the file. Nothing of ours is under way: go on with what is there now."""
        self._engine.disconnect()
        self._begin_anew()
        self._prepare()

    def _borrow(self, connection: object, unit: Unit[T], *, plain: bool) -> T:
        if not isinstance(connection, sqlite3.Connection):
            raise StoreError(
                f"connection must be a sqlite3.Connection, not {type(connection).__name__}",
                hint="libraries that wrap one give it out, as connection.driver_connection or the like",
            )
        try:
            return borrowed.run(connection, self.place, unit, self._database)
        except sqlite3.ProgrammingError:
            raise  # such as: the connection belongs to another thread
        except sqlite3.Error as error:
            raise self._engine.refusal(error) from error

    def _is_open(self, connection: sqlite3.Connection) -> bool:
        return connection.in_transaction

    def listen(self, timeout_seconds: float | None) -> Waiting:
        """See Direct.listen."""
        return Waiting(log_path(self.place), timeout_seconds)

    def _refusal(self, error: sqlite3.Error) -> StoreError:
        return self._engine.refusal(error)

    # SQLite's locks don't pass on to a child, and are let go of by whichever process closes the file.

    def before_fork(self) -> bool:
        """Disconnect and keep the lock. False when that can't be: this thread or another one is in a transaction."""
        if self._owner is not None and self._owner[0] == threading.get_ident():
            return False
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            return False
        self._engine.disconnect()
        return True

    def after_fork(self) -> None:
        """See Forking."""
        self._lock.release()

    def leave_to_parent(self) -> None:
        """See Forking. If there was a connection, SQLite takes the locks of the parent for those of this process: a
        connection of our own wouldn't have any."""
        self._orphaned = self._engine.is_connected
        super().leave_to_parent()
