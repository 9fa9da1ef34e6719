"""A file of SQLite as one side of a copy."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

from ...errors import StoreError, StoreMissing
from ..files import FileLock
from ..making import need_folder
from ..schema import applied, migrate
from ..store import Row
from .side import Side
from .tables import TABLES, Copied, Key

_BUSY_SECONDS = 5.0


class SqliteSide(Side):
    """See Side. Nobody else can even read the file meanwhile: that is how SQLite tells whether somebody has it open."""

    def __init__(self, path: str) -> None:
        self.place = path
        self._lock = FileLock(f"{path}-lock")
        self._open: sqlite3.Connection | None = None

    def open(self, *, target: bool) -> None:
        """See Side.open."""
        if not target and not os.path.exists(self.place):
            raise StoreMissing(f"there is no database at {self.place}", hint="name the file that store.url names")
        need_folder(self.place)
        self._lock.acquire()
        with self._errors():
            migrate(self.place, may_change=target and not _made(self.place), copying=target)
            self._open = sqlite3.connect(self.place, timeout=_BUSY_SECONDS, isolation_level=None)
            self._open.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._open.execute("PRAGMA synchronous = FULL")
            self._open.execute("BEGIN IMMEDIATE")
            self._open.execute("COMMIT")

    def close(self) -> None:
        """See Side.close."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._lock.release()

    def count(self, table: Copied) -> int:
        """See Side.count."""
        return int(self._all(table.count())[0][0])

    def rows(self, table: Copied, after: Key | None = None) -> Iterator[Row]:
        """See Side.rows."""
        text = table.rows("?", beyond=after is not None)
        with self._errors(table.name):
            for row in self._connection.execute(text, after or ()):
                yield _with_booleans(table, row) if table.booleans else row

    def last_key(self, table: Copied) -> Key | None:
        """See Side.last_key."""
        found = self._all(table.last_key())
        return tuple(found[0]) if found else None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See Side.transaction."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add(self, table: Copied, rows: Sequence[Row]) -> None:
        """See Side.add."""
        marks = ", ".join("?" for _ in table.columns)
        with self._errors(table.name):
            self._connection.executemany(f"INSERT INTO {table.into()} VALUES ({marks})", rows)  # noqa: S608

    def numbers(self) -> dict[str, int]:
        """See Side.numbers."""
        used = dict(self._all("SELECT name, seq FROM sqlite_sequence"))
        used["jobs"] = self._all("SELECT last_id FROM removed_jobs")[0][0]
        return {
            table.name: max(used.get(table.name, 0), self._all(table.greatest())[0][0])
            for table in TABLES
            if table.numbered
        }

    def set_numbers(self, numbers: Mapping[str, int]) -> None:
        """See Side.set_numbers."""
        for name, number in numbers.items():
            if name == "jobs":
                self._all("UPDATE removed_jobs SET last_id = ?", number)
            else:
                self._all("DELETE FROM sqlite_sequence WHERE name = ?", name)
                self._all("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", name, number)

    def meta(self) -> dict[str, str]:
        """See Side.meta."""
        return dict(self._all("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """See Side.set_meta."""
        self._all("DELETE FROM meta")
        with self._errors():
            self._connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", list(values.items()))

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._open is not None
        return self._open

    def _all(self, text: str, *values: object) -> list[Row]:
        with self._errors():
            return self._connection.execute(text, values).fetchall()

    @contextlib.contextmanager
    def _errors(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreError(
                    f"{self.place} is in use", hint="stop edgeq, its workers and other programs that use it first"
                ) from error
            raise StoreError(f"{self.place}{where and f', {where}'}: {error}") from error


def _made(path: str) -> bool:
    """Whether there are tables, of whatever version."""
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        return bool(applied(connection))


def _with_booleans(table: Copied, row: Row) -> Row:
    return tuple(bool(value) if place in table.booleans else value for place, value in enumerate(row))
