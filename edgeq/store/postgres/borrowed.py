"""Units on a connection to PostgreSQL that isn't ours: a program's own, so that a job is there if and only if what else
the program writes is there.

Such a unit is a part of the transaction that is open on the connection; none open, it begins one. Either way it is the
program that commits. What only adds rows takes no lock, so a program may be slow. What depends on other rows takes the
store's lock until the commit: until then nobody else can write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper

from ...errors import StoreError
from ..store import Row, Unit
from .connecting import LOCK_SECONDS
from .engine import CHANNEL
from .transaction import PostgresTx

T = TypeVar("T")

_TABLES = b", ".join(
    [
        b"SELECT (SELECT oid::bigint FROM pg_database WHERE datname = current_database())",
        *(f"to_regclass('{name}')::oid::bigint".encode() for name in ("events", "jobs", "limits", "breakers", "meta")),
    ]
)
_STORE = b"SELECT value FROM meta WHERE key = 'store_id'"
_HINT = "a job can be part of a transaction only in the database, and with the search_path, that the queue has"


class _Plain:
    """A connection whose rows are tuples, and whose numbers are of one type, whatever its owner has made of them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, text: bytes, values: Sequence[Any] | None = None, /) -> psycopg.Cursor[Row]:
        """See psycopg.Connection.execute."""
        cursor = psycopg.Cursor(self._connection, row_factory=tuple_row)
        cursor.adapters.register_dumper(int, Int8Dumper)
        return cursor.execute(text, values)


def tables(connection: _Plain | psycopg.Connection[Any]) -> tuple[Any, ...]:
    """What tells a store from any other one, as the connection sees it."""
    [found] = connection.execute(_TABLES).fetchall()
    if None in found:
        return found
    return *found, *connection.execute(_STORE).fetchall()


def run(
    connection: psycopg.Connection[Any], expected: tuple[Any, ...], sender: str, unit: Unit[T], *, plain: bool
) -> T:
    """Run the unit on a connection that sees the `expected` tables; what it did is undone when it raises. `sender`
    begins what tells others of it. `plain`: it only adds rows.

    Raises StoreError when it is a connection to another database, commits each statement by itself, or can't do any
    more; what the unit raises; psycopg.Error.
    """
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise StoreError("a statement of the connection's transaction has failed", hint="roll it back, and begin again")
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise StoreError(
            "the connection has no transaction open, and commits each statement by itself",
            hint="do it inside of `with connection.transaction():`",
        )
    ours = _Plain(connection)
    ours.execute(b"SAVEPOINT edgeq")
    try:
        if tables(ours) != expected:
            raise StoreError(
                f"the connection is to database {connection.info.dbname}, where it doesn't see the queue's tables",
                hint=_HINT,
            )
        if not plain:
            _lock(ours, expected[1])
        tx = PostgresTx(ours)
        result = unit(tx)
        if tx.touched:
            told = f"{sender} {' '.join(sorted(tx.touched))}"
            ours.execute(b"SELECT pg_notify(%s, %s)", (CHANNEL, told))
    except BaseException:
        if not connection.closed:
            ours.execute(b"ROLLBACK TO SAVEPOINT edgeq")
            ours.execute(b"RELEASE SAVEPOINT edgeq")
            if status == TransactionStatus.IDLE:
                connection.rollback()
        raise
    ours.execute(b"RELEASE SAVEPOINT edgeq")
    return result


def _lock(ours: _Plain, number: int) -> None:
    """Have the store for the program alone, waiting for it as long as everybody does."""
    [(level, waits)] = ours.execute(
        b"SELECT current_setting('transaction_isolation'), current_setting('lock_timeout')"
    ).fetchall()
    if level not in ("read committed", "read uncommitted"):
        raise StoreError(
            f"the connection's transaction is {level}, and doesn't see what others have written since it began",
            hint="a job with a unique key, a limit or a dependency can be part of a read committed transaction only",
        )
    limit = b"SELECT set_config('lock_timeout', %s, true)"
    ours.execute(limit, (f"{LOCK_SECONDS}s",))
    ours.execute(b"SELECT pg_advisory_xact_lock(%s)", (number,))
    ours.execute(limit, (waits,))
