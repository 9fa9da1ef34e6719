"""One plain row, such as a job without a limit or a unique key, in one way there and back: a single statement, which
is a transaction by itself.

The row's id is taken before it is inserted, and left in the program's row of `writers`; the row is inserted only if
that one still says what this program knows. So when the connection is lost, it tells what has become of the statement;
and once it is taken away, a statement that the server hasn't begun with does nothing any more.

The store's lock isn't taken: the row depends on no others, and nobody's decision depends on its not being there.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

import peewee as pw
import psycopg

from ..store import Row, Statement, Tx
from .engine import CHANNEL
from .inserts import typed

_MARK = b"INSERT INTO writers (name, batch, used_at) VALUES (%s, 0, now())"
_TAKE_AWAY = b"DELETE FROM writers WHERE name = %s RETURNING batch"


class Unmarked(Exception):
    """The statement did nothing: this program's row of `writers` isn't there (any more)."""


class Marker:
    """This program's row of `writers` for such statements: the last id that is known to be in use, None while there is
    no row."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.last: int | None = None

    def make(self, connection: psycopg.Connection[Any]) -> None:
        """Have the row there."""
        self.name = uuid.uuid4().hex
        connection.execute(_MARK, (self.name,))
        self.last = 0

    def take_away(self, connection: psycopg.Connection[Any]) -> int | None:
        """The id of a row that was inserted after all, 0 when there is none, None when nothing tells. Waits for a
        server that is still at it."""
        found = connection.execute(_TAKE_AWAY, (self.name,)).fetchall()  # may be asked again when it fails
        last, self.last = self.last, None
        return None if not found else 0 if found[0][0] == last else found[0][0]


class FoundTx(Tx):
    """The answer is known: the row is there, with the id `found`."""

    def __init__(self, found: int) -> None:
        super().__init__()
        self._found = found

    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """See Tx.insert_returning."""
        return [self._found]

    def run(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> NoReturn:
        """Not here."""
        raise TypeError("a single row is inserted by insert_returning")

    def rows(self, query: Statement | pw.Node, params: Sequence[Any] = ()) -> NoReturn:
        """Not here."""
        raise TypeError("a single row is inserted by insert_returning")

    def insert(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> NoReturn:
        """Not here."""
        raise TypeError("a single row is inserted by insert_returning")

    def now(self, now: int) -> int:
        """See Tx.now. There is no moment before the statement at which to ask the database."""
        return now

    def alone(self) -> NoReturn:
        """Not here."""
        raise TypeError("a single row depends on no others")


class SingleTx(FoundTx):
    """Takes one `insert_returning` of one row, and commits it. `sender` begins what tells others of it; what is touched
    is to be said before."""

    def __init__(self, connection: psycopg.Connection[Any], marker: Marker, sender: str) -> None:
        super().__init__(0)
        self._connection = connection
        self._marker = marker
        self._sender = sender

    def insert_returning(self, table: type[pw.Model], columns: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """See Tx.insert_returning. Raises Unmarked."""
        [row] = rows
        told = f"{self._sender} {' '.join(sorted(self.touched))}"
        values = (self._marker.name, self._marker.last, *row, told)
        found = self._connection.execute(_statement(table, tuple(columns)), values).fetchall()
        if not found:
            raise Unmarked
        self._marker.last = found[0][0]
        return [found[0][0]]


@functools.cache
def _statement(table: type[pw.Model], columns: tuple[str, ...]) -> bytes:
    """All names are our own."""
    name, columns_text = table._meta.table_name, ",".join(columns)
    return f"""
WITH taken AS (
    UPDATE writers SET batch = nextval(pg_get_serial_sequence('{name}', 'id')), used_at = now()
    WHERE name = %s AND batch = %s RETURNING batch
), added AS (
    INSERT INTO "{name}" (id, {columns_text}) OVERRIDING SYSTEM VALUE
    SELECT batch, {typed(table, columns)} FROM taken RETURNING id
)
SELECT id, pg_notify('{CHANNEL}', %s) FROM added
""".encode()  # noqa: S608
