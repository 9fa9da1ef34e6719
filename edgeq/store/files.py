"""The database file on the disk: who holds it, and whether it is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from pathlib import Path

from ..errors import StoreError, StoreUnavailable

_QUICK_CHECK_BYTES_MAX = 64 * 2**20
_LOCKS_AT = 2**30  # the page there is never written
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
MAKING_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Held(StoreError):
    """Another appliance has the lock."""


class FileLock:
    """At most one appliance uses a database file. The kernel lets go of the lock when its holder dies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self, *, to_make: bool = False) -> None:
        """Take the lock, unless it is held already. Raises Held, naming the holder's process, when another appliance
        has it; StoreUnavailable while the disk is full, read-only or answers with errors.

        With `to_make` it is taken for a moment, to make the database: an appliance that starts meanwhile waits for its
        release, up to MAKING_SECONDS.
        """
        if self._file is not None:
            return
        for _ in range(round(MAKING_SECONDS / _LOOK_SECONDS)):
            holder = self._try(to_make)
            if self._file is not None:
                return
            if holder:
                break
            time.sleep(_LOOK_SECONDS)
        raise Held(
            f"another edgeq{f' (process {holder})' if holder else ''} runs on {self._path.removesuffix('-lock')}",
            hint="stop it first, or give this one a store.url of its own",
        )

    def _try(self, to_make: bool) -> str:
        """Take the lock if it is free; else the number of the process that has it, "" for one that makes the file."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            kind = StoreUnavailable if error.errno in _MAY_PASS else StoreError
            raise kind(
                f"can't write beside the database: {error}", hint="look at the rights of the folder and at its disk"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            return holder
        with contextlib.suppress(OSError):  # a full disk must not keep the appliance from starting
            os.ftruncate(descriptor, 0)
            if not to_make:
                os.write(descriptor, str(os.getpid()).encode())
        self._file = descriptor
        return ""

    def release(self) -> None:
        """Let go. Does nothing when the lock isn't held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def damaged(path: str) -> str:
    """What is wrong with the database file, or "" when it is whole, new or not there.

    The whole file is checked when the last use didn't end cleanly and the file is small enough for a quick start, and
    always after SQLite has complained about it (`mark_suspect`). Only SQLite looks into it: whoever else opens the file
    and closes it again takes from this process the locks of any connection that it has to it already.
    """
    try:
        size = os.stat(path).st_size
    except OSError:
        return ""
    suspect = os.path.exists(path + "-suspect")
    unclean = _size(path + "-wal") > 0
    if size == 0:  # SQLite would throw its log away
        return "the file is empty, and was not" if suspect or unclean else ""
    thorough = suspect or (unclean and size <= _QUICK_CHECK_BYTES_MAX)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if thorough:
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if answer != "ok":
                return answer.splitlines()[-1]
            if _cut_short(connection, path):
                return "the end of the file is missing"
    except sqlite3.DatabaseError as error:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return "not a SQLite database"
        if code == sqlite3.SQLITE_CORRUPT:
            return str(error)
    finally:
        if connection is not None:
            connection.close()
    unmark_suspect(path)
    return ""


def _cut_short(connection: sqlite3.Connection, path: str) -> bool:
    """Whether pages are in neither the file nor its log. SQLite takes such pages for empty ones.

    Others may write meanwhile. A page goes from the log into the file, so the log is looked at first; while this
    connection reads, the file doesn't get shorter.
    """
    connection.execute("BEGIN")
    (count,), (page_bytes,) = (connection.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
    if count * page_bytes <= _size(path):
        return False
    from .sqlite.overlay import logged_pages  # after a kill only

    logged = logged_pages(f"{path}-wal")
    there = _size(path) // page_bytes
    if count - there > len(logged) + 1:
        return True
    beyond = {*range(there + 1, count + 1)} - {_LOCKS_AT // page_bytes + 1}
    return not beyond <= logged


def mark_suspect(path: str) -> None:
    """Have the next start check the whole file."""
    with contextlib.suppress(OSError):
        Path(path + "-suspect").touch()


def unmark_suspect(path: str) -> None:
    """The file is whole, or another one."""
    with contextlib.suppress(OSError):
        os.unlink(path + "-suspect")


def disk(path: str) -> dict[str, int]:
    """How large the file and its log are, and what is free on their disk, in bytes; 0 for what can't be told."""
    try:
        there = os.statvfs(os.path.dirname(os.path.abspath(path)))
        free, whole = there.f_bavail * there.f_frsize, there.f_blocks * there.f_frsize
    except OSError:
        free = whole = 0
    return {
        "file_bytes": _size(path), "wal_bytes": _size(path + "-wal"), "free_disk_bytes": free, "disk_bytes": whole,
    }  # fmt: skip


def _size(path: str) -> int:
    """In bytes; 0 where there is no file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
