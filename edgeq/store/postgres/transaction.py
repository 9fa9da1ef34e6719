"""A transaction on a connection to PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peewee as pw
import psycopg

from ..inserts import Inserts
from ..store import NotAlone, Row, Statement, Tx, render

DIALECT = pw.PostgresqlDatabase(None)
"""Renders queries, and never connects."""


class PostgresTx(Tx):
    """See store.Tx. `stored_now` is the database's clock, None to go by the clock of whoever asks."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        super().__init__()
        self.shared = False
        self.stored_now: int | None = None
        self._connection = connection
        self._inserts = Inserts("%s")

    def _execute(self, query: Statement | pw.Node, params: Sequence[Any]) -> psycopg.Cursor[Row]:
        if isinstance(query, Statement):
            return self._connection.execute(query.text(DIALECT).encode(), params)
        text, values = render(DIALECT, query)
        return self._connection.execute(text.encode(), values)

    def run(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> int:
        """See Tx.run."""
        return self._execute(query, params).rowcount

    def rows(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> list[Row]:
        """See Tx.rows."""
        return self._execute(query, params).fetchall()

    def insert(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> int:
        """See Tx.insert."""
        statements = self._inserts.of(table, columns, rows, "ON CONFLICT DO NOTHING")
        return sum(self._connection.execute(text.encode(), values).rowcount for text, values in statements)

    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """See Tx.insert_returning."""
        ids: list[int] = []
        for text, values in self._inserts.of(table, columns, rows, "RETURNING id"):
            ids += sorted([row[0] for row in self._connection.execute(text.encode(), values).fetchall()])
        return ids

    def now(self, now: int) -> int:
        """See Tx.now."""
        return now if self.stored_now is None else self.stored_now

    def alone(self) -> None:
        """See Tx.alone."""
        if self.shared:
            raise NotAlone
