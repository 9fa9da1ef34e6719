"""Which tables there are: migrations, run once each under the file's lock, and the store's own id."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from pathlib import Path
from types import ModuleType

from ..errors import StoreError
from ..lean import without
from .meta import COPY_OF, incomplete

FOLDER = Path(__file__).parent / "migrations" / "sqlite"
_RIGHTS = 0o640  # nothing for strangers: a store holds what signs the links in notifications


def known() -> list[str]:
    """The names of all migrations of this version, in order."""
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def applied(connection: sqlite3.Connection) -> list[str]:
    """The names of the migrations that the file has seen."""
    try:
        return [row[0] for row in connection.execute("SELECT name FROM schema_migration ORDER BY name")]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise


def current(path: str, *, copying: bool = False) -> bool:
    """Whether the file has all tables of this version. Raises StoreError when it was written by a newer one, or, unless
    that goes on (`copying`), when it is an incomplete copy."""
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        done = applied(connection)
        whole = not done or not connection.execute("SELECT 1 FROM meta WHERE key = ?", (COPY_OF,)).fetchall()
    finally:
        connection.close()
    if not (whole or copying):
        raise incomplete(path)
    strange = sorted(set(done) - set(known()))
    if strange:
        raise StoreError(
            f"{path} was written by a newer edgeq (it has {strange[-1]})",
            hint="install that version or a later one",
        )
    return done == known()


def migrate(path: str, *, may_change: bool, copying: bool = False) -> None:
    """Bring the schema up to date. The caller holds the file's lock.

    Raises StoreError when the file was written by a newer version, or, unless `may_change`, when it needs a migration;
    sqlite3.Error when the file can't be written. For `copying` see `current`.
    """
    if may_change:
        with contextlib.suppress(OSError):  # it is there, or SQLite will say why it can't be
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _RIGHTS))
    if current(path, copying=copying):
        return
    if not may_change:
        raise StoreError(f"{path} has no tables of this version yet", hint="start the new edgeq once, then try again")
    # Imported when needed: a start with nothing to migrate doesn't pay its memory.
    import peewee as pw

    # The one brings all that is for PostgreSQL, the other is for a command of its own.
    with without({"playhouse.cockroachdb": None, "argparse": ModuleType("argparse")}):
        from playhouse.migrations import Runner

    # The first must stand first: it counts only before there is anything in the file.
    pragmas = {"auto_vacuum": "incremental", "journal_mode": "wal", "synchronous": "full", "busy_timeout": 5000}
    database = pw.SqliteDatabase(path, pragmas=pragmas)
    try:
        with database:
            Runner(database, directory=os.fspath(FOLDER)).up()
            database.execute_sql(
                "INSERT INTO meta (key, value) VALUES ('store_id', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,)
            )
            database.execute_sql(
                "INSERT INTO meta (key, value) VALUES ('schema_version', ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (known()[-1],),
            )
    except pw.DatabaseError as error:
        raise getattr(error, "orig", error) from None  # the driver's own error, which the caller knows


def forget_statistics(path: str) -> None:
    """Undo an ANALYZE, which somebody may have asked for. What it found of a table that was small then has SQLite read
    all of it when it is large; knowing nothing, it goes by the indexes that the statements were written for."""
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'sqlite_stat[0-9]'").fetchall()
        for (name,) in found:
            connection.execute(f"DROP TABLE {name}")
    finally:
        connection.close()


def store_id(path: str) -> str:
    """The store's own id."""
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()
    finally:
        connection.close()
    return str(row[0]) if row else ""
