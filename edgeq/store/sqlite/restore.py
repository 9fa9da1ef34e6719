"""A backup in the place of the database.

What can be relied on:

- The backup is checked before and after it was copied; the database that was there stays beside it, with its log. Who
  is interrupted finds the one or the other, and call again.
- Nobody else may have the database open.
- No id is given twice: new rows begin above the greatest id of the database that was there, as far as that can be read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import NamedTuple

from ...errors import StoreError, StoreMissing
from ...failpoints import failpoint
from ..copying.tables import TABLES
from ..files import FileLock
from ..making import need_folder
from ..schema import known
from . import faults, patience
from .backup import copy_to, remove_part
from .replace import aside_name, put_in_place, undo
from .salvage import Salvage, Unreadable
from .whole import Contents, Watch, unwatched, verify


class Restored(NamedTuple):
    """What is there now; where the database went that was there, if any was; whether ids go on above all of its own."""

    contents: Contents
    aside: str | None
    numbers: bool


def restore(path: str, backup: str, *, now: int, watch: Watch = unwatched) -> Restored:
    """Put the file `backup` into the place of the database at `path`. `now` is in microseconds since 1970 UTC.

    Raises StoreError: no such backup, or not a whole one, or one of a newer version; somebody uses the database; no
    room. Then the database is as it was.
    """
    if not os.path.isfile(backup):
        raise StoreMissing(f"there is no file {backup}", hint="name one that edgeq db backup has made")
    if os.path.exists(path) and os.path.samefile(path, backup):
        raise StoreError(f"{backup} is the database itself")
    with contextlib.suppress(OSError):
        if os.stat(f"{backup}-wal").st_size:
            raise StoreError(
                f"{backup} has a log beside it, so it is a database in use, or left by a crash, and not a backup",
                hint="make one of it with edgeq db backup, and store.url set to it",
            )
    need_folder(path)
    lock = FileLock(f"{path}-lock")
    lock.acquire()
    new = f"{path}.restored"
    try:
        undo(path)
        found = verify(backup, watch)
        if found.schema not in known():
            raise StoreError(
                f"{backup} was written by a newer edgeq (it has {found.schema})",
                hint="install that version or a later one",
            )
        remove_part(new)
        if copy_to(backup, new, watch) != found or verify(new, watch) != found:
            raise StoreError(f"what was written to {new} is not what {backup} holds", hint="look at that disk")
        failpoint("restore.copied")
        there = os.path.exists(path)
        if there:
            _have_alone(path)
        numbers = there and _go_on_above(path, new)
        aside = aside_name(path, "replaced", now) if there else None
        put_in_place(new, path, aside or "")
    except OSError as error:
        raise StoreError(f"the backup can't be put into the place of {path}: {error}") from error
    except sqlite3.Error as error:
        raise faults.refusal(error, path) from error
    finally:
        remove_part(new)
        lock.release()
    return Restored(found, aside, numbers)


def _have_alone(path: str) -> None:
    """See that nobody has the database open, and bring its log into the file, if it is whole."""
    connection = sqlite3.connect(path, timeout=patience.BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if faults.code(error) == sqlite3.SQLITE_BUSY:
            raise StoreError(
                f"{path} is in use", hint="stop edgeq, its workers and other programs that use it first"
            ) from error
        if faults.code(error) not in faults.DAMAGED:
            raise
    finally:
        connection.close()


def _go_on_above(path: str, new: str) -> bool:
    """Have the store at `new` give ids above those of the one at `path`; whether all of these are known."""
    try:
        with Salvage(path) as salvage:
            numbers, sure = salvage.numbers()
    except Unreadable:
        return False
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN IMMEDIATE")
        given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        for table in TABLES:
            number = numbers.get(table.name, 0)
            if table.name == "jobs":
                connection.execute("UPDATE removed_jobs SET last_id = max(last_id, ?)", (number,))
            elif table.numbered and number > given.get(table.name, 0):
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, number))
        connection.execute("COMMIT")
    finally:
        connection.close()
    return sure
