"""A transaction on a connection to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import peewee as pw
import psycopg

from ..store import NotAlone, Row, Statement, Tx, render
from . import inserts

DIALECT = pw.PostgresqlDatabase(None)
"""Renders queries, and never connects."""


class Executor(Protocol):
    """What a transaction needs of a connection, with rows as tuples."""

    def execute(self, query: bytes, params: Sequence[Any] = ..., /) -> psycopg.Cursor[Row]:
        """See psycopg.Connection.execute."""


class PostgresTx(Tx):
    """See store.Tx. `stored_now` is the database's clock, None to go by the clock of whoever asks. `wrote`: it may have
    changed something."""

    def __init__(self, connection: Executor) -> None:
        super().__init__()
        self.shared = self.wrote = False
        self.stored_now: int | None = None
        self._connection = connection

    def _execute(self, query: Statement | pw.Node, params: Sequence[Any]) -> psycopg.Cursor[Row]:
        text, values = (query.text(DIALECT), params) if isinstance(query, Statement) else render(DIALECT, query)
        done = self._connection.execute(text.encode(), values)
        self.wrote = self.wrote or (done.rowcount != 0 and not text.startswith("SELECT"))
        return done

    def run(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> int:
        """See Tx.run."""
        return self._execute(query, params).rowcount

    def rows(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Tx.rows."""
        return self._execute(query, params).fetchall()

    def insert(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> int:
        """See Tx.insert."""
        return sum(done.rowcount for done in self._insert(table, columns, rows, "ON CONFLICT DO NOTHING"))

    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """See Tx.insert_returning."""
        return [
            row[0] for done in self._insert(table, columns, rows, "RETURNING id") for row in sorted(done.fetchall())
        ]

    def _insert(
        self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row], end: str
    ) -> Iterator[psycopg.Cursor[Row]]:
        self.wrote = self.wrote or bool(rows)
        if len(rows) == 1:
            yield self._connection.execute(inserts.for_one(table, tuple(columns), end), rows[0])
        elif rows:
            for some in inserts.parameters(rows):
                yield self._connection.execute(inserts.for_many(table, tuple(columns), end), (some,))

    def now(self, now: int) -> int:
        """See Tx.now."""
        return now if self.stored_now is None else self.stored_now

    def alone(self) -> None:
        """See Tx.alone."""
        if self.shared:
            raise NotAlone
