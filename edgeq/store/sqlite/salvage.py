"""What can still be read of a damaged database.

- The file stays as it is. If not even its first pages can be read, those of a new store are put over them.
- SQLite reads, so that what its checks find wrong isn't returned. Where it stumbles, the next row that it can read is
  looked for, by ever longer steps and then by halving: a page that is lost costs the rows of that page.
- A row counts only if each value is of its column's kind, texts are texts, JSON is JSON, and it stands where its key
  belongs. What was overwritten with something that looks just like a row can't be told from one.
- It ends: each step goes on to keys that weren't looked at, and of one table only so many places are stumbled over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ...errors import StoreError
from ..copying.tables import TABLES, Copied
from ..row_kinds import checker
from ..store import Row
from .overlay import template, write_log
from .whole import uri

STUMBLES_MAX = 2000
_STEP_GROWTH = 1.25
_ID_MAX = 2**63 - 1


class Unreadable(StoreError):
    """Not even what tables there are can be read."""


class Salvage:
    """A damaged database that nobody writes to. Use it in a `with` block. Raises Unreadable at its start.

    `rejected` counts the rows of each table that were no such rows, `gaps` has the ranges of ids that couldn't be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._work = f"{path}.salvage"
        self._open: sqlite3.Connection | None = None
        self._columns: dict[str, tuple[str, ...]] = {}
        self.rejected: dict[str, int] = {}
        self.gaps: dict[str, list[tuple[int, int]]] = {}

    def __enter__(self) -> Salvage:
        if not ((not self._empty() and self._try(self._path)) or self._under_new_pages()):
            self.__exit__()
            raise Unreadable(f"{self._path} can't be read any more")
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        shutil.rmtree(self._work, ignore_errors=True)

    def columns(self, table: Copied) -> tuple[str, ...]:
        """The columns of a table that there are: an older store has fewer. None: there is no such table."""
        return self._columns.get(table.name, ())

    def numbered(self, table: Copied, low: int = 0, high: int = _ID_MAX) -> Iterator[Row]:
        """The rows with `low` < id <= `high`, the greatest first."""
        columns = self.columns(table)
        if not columns:
            return
        fits = checker(table.name, columns)
        text = f"{self._select(table, columns)} NOT INDEXED WHERE id <= ? AND id > ? ORDER BY id DESC"
        position = high
        for _ in range(STUMBLES_MAX):
            try:
                for row in self._rows(text, position, low):
                    if type(row[0]) is not int or not low < row[0] <= position:
                        raise sqlite3.DatabaseError("a row stands where it doesn't belong")
                    position = row[0] - 1
                    if fits(row):
                        yield row
                    else:
                        self.rejected[table.name] = self.rejected.get(table.name, 0) + 1
                return
            except sqlite3.DatabaseError:
                beyond = self._beyond(text, position, low)
                self.gaps.setdefault(table.name, []).append((low if beyond is None else beyond, position))
                if beyond is None:
                    return
                position = beyond

    def keyed(self, table: Copied) -> Iterator[Row]:
        """The rows of a table without ids, from its beginning to where it can't be read, and from its end to there."""
        columns = self.columns(table)
        if not columns:
            return
        keys = [columns.index(table.columns[place]) for place in table.key]
        fits = checker(table.name, columns)
        seen: set[Row] = set()
        for order in ("ASC", "DESC"):
            by = ", ".join(f'"{columns[place]}" {order}' for place in keys)
            whole = True
            try:
                for row in self._rows(f"{self._select(table, columns)} ORDER BY {by}"):
                    key = tuple(row[place] for place in keys)
                    if key in seen:
                        raise sqlite3.DatabaseError("a row stands where it doesn't belong")
                    seen.add(key)
                    if fits(row):
                        yield row
                    else:
                        self.rejected[table.name] = self.rejected.get(table.name, 0) + 1
            except sqlite3.DatabaseError:
                whole = False
            if whole:
                return
            self.gaps.setdefault(table.name, [])

    def numbers(self) -> tuple[dict[str, int], bool]:
        """For each table whose rows are numbered the greatest number that is known, and whether that is sure."""
        used: dict[str, int] = {}
        sure = True
        for text in ("SELECT name, seq FROM sqlite_sequence", "SELECT 'jobs', last_id FROM removed_jobs"):
            try:
                used |= {name: seq for name, seq in self._rows(text) if type(seq) is int and 0 <= seq < _ID_MAX}
            except sqlite3.DatabaseError:
                sure = False
        for table in TABLES:
            if table.numbered and self.columns(table):
                used[table.name] = max(used.get(table.name, 0), next((row[0] for row in self.numbered(table)), 0))
        sure = sure and "events" in used and "jobs" not in self.gaps  # no other place has the number of the last job
        self.forget()
        return used, sure

    def meta(self) -> dict[str, str]:
        """What can be read of `meta`."""
        rows: list[Row] = []
        with contextlib.suppress(sqlite3.DatabaseError):
            rows.extend(self._rows("SELECT key, value FROM meta ORDER BY key"))
        return {key: value for key, value in rows if isinstance(key, str) and isinstance(value, str)}

    def forget(self) -> None:
        """Begin to count anew."""
        self.rejected.clear()
        self.gaps.clear()

    def _beyond(self, text: str, position: int, low: int) -> int | None:
        """The greatest id below `position` from which on rows can be read downwards again; None: there is none."""
        bad, step = position, 1.0
        while True:
            good = max(position - int(step), low)
            if good == low or self._readable(text, good, low):
                break
            bad, step = good, step * _STEP_GROWTH + 1
        while bad - good > 1:
            middle = (bad + good) // 2
            if self._readable(text, middle, low):
                good = middle
            else:
                bad = middle
        return good if good > low else None

    def _readable(self, text: str, position: int, low: int) -> bool:
        try:
            row = next(self._rows(text, position, low), None)
        except sqlite3.DatabaseError:
            return False
        return row is None or (type(row[0]) is int and low < row[0] <= position)

    def _rows(self, text: str, *values: object) -> Iterator[Row]:
        assert self._open is not None
        return self._open.execute(text, values)

    def _select(self, table: Copied, columns: tuple[str, ...]) -> str:
        return f"SELECT {_names(columns)} FROM {table.name}"  # noqa: S608

    def _under_new_pages(self) -> bool:
        """Read it under the first page of a new store, and then also under those of its list of tables."""
        shutil.rmtree(self._work, ignore_errors=True)
        try:
            os.mkdir(self._work)
            pages = template(self._work)
            file = os.path.join(self._work, "damaged.db")
            if self._empty():
                Path(file).write_bytes(bytes(len(pages[1])))
            else:
                os.link(self._path, file)
            for laid in ({1: pages[1]}, pages):
                log = f"{file}-wal"
                write_log(self._path, f"{self._path}-wal", laid, log)
                if self._try(file):
                    return True
                os.unlink(log)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{file}-shm")
        except OSError as error:
            raise Unreadable(f"{self._path} can't be read any more, and a new beginning not made: {error}") from error
        return False

    def _empty(self) -> bool:
        """Whether there may be something in the log only. SQLite throws the log of an empty file away."""
        return os.path.exists(self._path) and os.path.getsize(self._path) == 0

    def _try(self, file: str) -> bool:
        try:
            connection = sqlite3.connect(uri(file, mode="ro"), uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.DatabaseError:
            return False
        connection.text_factory = _text
        try:
            for pragma in ("cell_size_check=ON", "trusted_schema=OFF", "query_only=ON", "cache_size=-2048"):
                connection.execute(f"PRAGMA {pragma}")
            found = {}
            for table in TABLES:
                there = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
                found[table.name] = tuple(name for name in table.columns if name in there)
        except sqlite3.DatabaseError:
            connection.close()
            return False
        if not found["events"]:
            connection.close()
            return False
        self._open, self._columns = connection, found
        return True


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)  # some are words of SQL


class _NoText:
    """Stands for a text that is none."""


def _text(raw: bytes) -> object:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return _NoText()
    return _NoText() if "\0" in text else text
