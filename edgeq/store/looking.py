"""A look at a file of SQLite that changes nothing in it, whoever looks, and whatever runs on it."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import msgspec

from ..errors import StoreError, StoreMissing
from .meta import COPY_OF
from .schema import applied, known

SQLITE_VERSION = sqlite3.sqlite_version

_WAL_BUG_UNTIL = (3, 51, 2)
_BUSY_SECONDS = 2.0
_PROGRESS_STEPS = 1000


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is there. `missing` are migrations that this version would make, `strange` those of a newer one; `head` is
    the highest id of an event; `copy` that it is the incomplete copy of another store. `damage` says what is wrong with
    the file, "" that nothing is, None that the time didn't do to read all of it."""

    head: int
    missing: list[str]
    strange: list[str]
    copy: bool
    file_bytes: int
    free_bytes: int
    damage: str | None


def has_wal_bug() -> bool:
    """Whether this SQLite can damage a database when two connections write and checkpoint at one moment."""
    return sqlite3.sqlite_version_info <= _WAL_BUG_UNTIL


def look(path: str, check_seconds: float) -> Look:
    """Look at the file, and spend so long on reading all of it. Raises StoreMissing; StoreError when it is no database
    of edgeq or can't be read."""
    if not os.path.exists(path):
        raise StoreMissing(f"there is no database at {path}")
    try:
        connection = sqlite3.connect(_uri(path), uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            return _look(connection, check_seconds)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


def _uri(path: str) -> str:
    """Where nobody has the file open and it was closed in peace, SQLite needs no files beside it to read: it would make
    some, of whoever looks."""
    alone = not any(os.path.exists(path + end) for end in ("-wal", "-shm"))
    return f"{Path(os.path.abspath(path)).as_uri()}?{'immutable=1' if alone else 'mode=ro'}"


def _look(connection: sqlite3.Connection, check_seconds: float) -> Look:
    done, mine = applied(connection), known()
    if not done:
        raise StoreError("it has no tables of edgeq", hint="name another file in store.url")
    page, pages, free = (
        int(connection.execute(f"PRAGMA {what}").fetchone()[0])
        for what in ("page_size", "page_count", "freelist_count")
    )
    return Look(
        head=int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]),
        missing=[name for name in mine if name not in done],
        strange=[name for name in done if name not in mine],
        copy=connection.execute("SELECT 1 FROM meta WHERE key = ?", (COPY_OF,)).fetchone() is not None,
        file_bytes=page * pages,
        free_bytes=page * free,
        damage=_damage(connection, check_seconds),
    )


def _damage(connection: sqlite3.Connection, seconds: float) -> str | None:
    until = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > until, _PROGRESS_STEPS)
    try:
        answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    return "" if answer == "ok" else answer.splitlines()[-1]
