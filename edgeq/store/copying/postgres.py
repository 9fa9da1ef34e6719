"""A database of PostgreSQL as one side of a copy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from ...errors import StoreError
from ..postgres import faults, schema
from ..postgres.connecting import connect, place
from ..store import Row
from .side import Side
from .tables import TABLES, Copied, Key

_IN_USE_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_SETTINGS = (
    "SET statement_timeout = 0; SET lock_timeout = '5s'; SET idle_session_timeout = 0; "
    "SET idle_in_transaction_session_timeout = 0"
)
_LOCK = "SELECT pg_try_advisory_lock('events'::regclass::oid::bigint)"
# A plain dispatch, or another program's statement, doesn't ask for the store's lock.
_FREEZE = f"BEGIN; LOCK TABLE {', '.join(table.name for table in TABLES)}, meta IN SHARE MODE"
_USERS = """
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'edgeq %' ORDER BY 1
"""


class PostgresSide(Side):
    """See Side. It holds the lock of the store, and of a source the tables, too."""

    def __init__(self, url: str) -> None:
        self.place = place(url)
        self._url = url
        self._open: psycopg.Connection[Row] | None = None

    def open(self, *, target: bool) -> None:
        """See Side.open."""
        with self._errors():
            self._open = connect(self._url, "db copy", _SETTINGS)
            [(made,)] = self._all("SELECT to_regclass('schema_migration') IS NOT NULL")
            schema.prepare(self._url, may_change=target and not made, copying=target)
            users = self._users()
            deadline = time.monotonic() + _IN_USE_SECONDS  # one that has just ended may still be seen
            while users and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
                users = self._users()
            if not (users or target):
                self._open.execute(_FREEZE.encode())
        if users:
            raise StoreError(
                f"{self.place} is in use by {', '.join(users)}",
                hint="stop edgeq, its workers and other programs that use it first",
            )

    def _users(self) -> list[str]:
        """Who else uses the store; when it is nobody, it is ours."""
        users = [row[0] for row in self._all(_USERS)]
        if not users and not self._all(_LOCK)[0][0]:
            users = ["another program"]
        return users

    def close(self) -> None:
        """See Side.close."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def count(self, table: Copied) -> int:
        """See Side.count."""
        return int(self._all(table.count())[0][0])

    def rows(self, table: Copied, after: Key | None = None) -> Iterator[Row]:
        """See Side.rows."""
        text = table.rows("%s", beyond=after is not None)
        with self._errors(table.name), self._connection.cursor() as cursor:
            yield from cursor.stream(text.encode(), after)

    def last_key(self, table: Copied) -> Key | None:
        """See Side.last_key."""
        found = self._all(table.last_key())
        return found[0] if found else None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See Side.transaction."""
        with self._errors(), self._connection.transaction():
            yield

    def add(self, table: Copied, rows: Sequence[Row]) -> None:
        """See Side.add. COPY is many times as fast as INSERT, and takes the numbers as they are."""
        with self._errors(table.name), self._connection.cursor() as cursor:
            try:
                with cursor.copy(f"COPY {table.into()} FROM STDIN".encode()) as copy:
                    for row in rows:
                        copy.write_row(row)
            except psycopg.DataError:
                for row in rows:
                    if any(isinstance(value, str) and "\0" in value for value in row):
                        raise StoreError(
                            f"{table.what(row)} holds a NUL character, which PostgreSQL doesn't take",
                            hint="change or remove that row, then copy again",
                        ) from None
                raise

    def numbers(self) -> dict[str, int]:
        """See Side.numbers."""
        found = {}
        for table in TABLES:
            if table.numbered:
                [(sequence,)] = self._all("SELECT pg_get_serial_sequence(%s, 'id')", table.name)
                [(used,)] = self._all(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
                [(there,)] = self._all(table.greatest())
                found[table.name] = max(used, there)
        return found

    def set_numbers(self, numbers: Mapping[str, int]) -> None:
        """See Side.set_numbers."""
        for name, number in numbers.items():
            self._all("SELECT setval(pg_get_serial_sequence(%s, 'id'), greatest(%s, 1), %s)", name, number, number > 0)

    def meta(self) -> dict[str, str]:
        """See Side.meta."""
        return dict(self._all("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """See Side.set_meta."""
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(b"DELETE FROM meta")
            cursor.executemany(b"INSERT INTO meta (key, value) VALUES (%s, %s)", list(values.items()))

    @property
    def _connection(self) -> psycopg.Connection[Row]:
        assert self._open is not None
        return self._open

    def _all(self, text: str, *values: Any) -> list[Row]:
        with self._errors():
            return self._connection.execute(text.encode(), values or None).fetchall()

    @contextlib.contextmanager
    def _errors(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise faults.refusal(error, f"{self.place}{where and f', {where}'}") from error
