"""What an error of SQLite says to an operator, and whether it may pass."""

from __future__ import annotations

import sqlite3

from ...errors import StoreError, StoreUnavailable

_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another program",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database file or its folder is read-only",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CANTOPEN: "the database file can't be opened",
    sqlite3.SQLITE_PROTOCOL: "the database is locked by another program",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_PERM: "the database file may not be used by this user",
    sqlite3.SQLITE_AUTH: "the database file may not be used by this user",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the database file is damaged",
}
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HINTS = {
    sqlite3.SQLITE_BUSY: "end the program that keeps a transaction open on it, or make its transactions shorter",
    sqlite3.SQLITE_FULL: "make room on it",
    sqlite3.SQLITE_CORRUPT: "edgeq run puts it aside at its next start, and begins a new one",
    sqlite3.SQLITE_NOTADB: "give the path of the file that store.url names",
}
_HINT = "look at the rights of the file and its folder, and at the space left on the disk"
# What keeps a file from being opened until somebody changes its rights or puts it aside.
_STAYS = (*DAMAGED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class FileGone(StoreError):
    """The file at the database's path is no longer the one that is open."""


def reason(error: Exception, path: str) -> str:
    """Why the store can't take commits, if that is what `error` says; else "": a unit is to blame."""
    if isinstance(error, FileGone):
        return str(error)
    found = _UNAVAILABLE.get(code(error), "")
    return f"{found}: {path} ({error})" if found else ""


def refusal(error: sqlite3.Error, path: str) -> StoreError:
    """What to raise for an error at the start: StoreUnavailable for what may pass."""
    said = reason(error, path)
    kind = StoreUnavailable if said and code(error) not in _STAYS else StoreError
    return kind(said or f"{path}: {error}", hint=_HINTS.get(code(error), _HINT))


def code(error: Exception) -> int:
    """SQLite's primary result code of an error, 0 for what isn't SQLite's."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF if isinstance(error, sqlite3.Error) else 0
