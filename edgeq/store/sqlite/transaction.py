"""A transaction on a connection to SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

import peewee as pw

from ..store import Row, Statement, Tx, render
from ..tables import Jobs
from .inserts import Inserts

# SQLite takes the greatest id there is, plus one, which can be that of a job that was removed.
_FIRST_JOB_ID = "(SELECT last_id + 1 FROM removed_jobs WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id > last_id))"


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
        self._inserts = Inserts({Jobs: _FIRST_JOB_ID})

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
