"""Units on a connection that isn't ours: a program's own, so that a job is there if and only if what else the program
writes is there.

Such a unit is a part of the transaction that is open on the connection; none open, it begins one. Either way it is the
program that commits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Any, TypeVar

import peewee as pw

from ..errors import StoreError, StoreUnavailable
from .sqlite import SqliteTx
from .store import Unit

T = TypeVar("T")


class _Plain:
    """A connection whose rows are tuples, whatever its owner has made of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, text: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """See sqlite3.Connection.execute."""
        cursor = self._connection.cursor(sqlite3.Cursor)
        cursor.row_factory = None
        return cursor.execute(text, parameters)


def run(connection: sqlite3.Connection, path: str, unit: Unit[T], database: pw.Database) -> T:
    """Run the unit on a connection to the database at `path`; what it did is undone when it raises.

    The connection makes no checkpoints any more, which with others on the same database must not happen at any moment
    (see sqlite); those who have the database as their own make them. Raises StoreError when it is a connection to
    another database, or commits each statement by itself; what the unit raises; sqlite3.Error.
    """
    plain, text_factory = _Plain(connection), connection.text_factory
    connection.text_factory = str
    try:
        _check_database(plain, path)
        return _run(connection, plain, unit, database)
    finally:
        connection.text_factory = text_factory


def _run(connection: sqlite3.Connection, plain: _Plain, unit: Unit[T], database: pw.Database) -> T:
    begun = not connection.in_transaction
    if begun:
        if _commits_by_itself(connection):
            raise StoreError(
                "the connection has no transaction open, and commits each statement by itself",
                hint="execute BEGIN IMMEDIATE before, and COMMIT when all is in",
            )
        plain.execute("BEGIN IMMEDIATE")
    try:
        plain.execute("PRAGMA wal_autocheckpoint=0")
        plain.execute("SAVEPOINT edgeq")
        try:
            result = unit(SqliteTx(plain, database))
        except BaseException:
            if connection.in_transaction:
                plain.execute("ROLLBACK TO edgeq")
                plain.execute("RELEASE edgeq")
            raise
        plain.execute("RELEASE edgeq")
    except BaseException as error:
        if begun and connection.in_transaction:
            plain.execute("ROLLBACK")
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY_SNAPSHOT:
            raise StoreUnavailable(
                "the transaction has read, and somebody else has written since: it can't write any more",
                hint="roll it back, and begin with BEGIN IMMEDIATE",
            ) from error
        raise
    return result


def _check_database(plain: _Plain, path: str) -> None:
    file = next((row[2] for row in plain.execute("PRAGMA database_list").fetchall() if row[1] == "main"), "")
    try:
        if file and os.path.samefile(file, path):
            return
    except OSError:
        pass
    raise StoreError(
        f"the connection is to {file or 'a database in memory'}, and the queue is {path}",
        hint="a job can be part of a transaction only in the database that the queue is in",
    )


def _commits_by_itself(connection: sqlite3.Connection) -> bool:
    autocommit = getattr(connection, "autocommit", -1)  # of Python 3.12; -1: as it was before
    return autocommit is True or (autocommit == -1 and connection.isolation_level is None)
