"""Writing a SQLite file anew, without what is free in it: once, for one that was made before it could shrink."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from ...errors import StoreError
from ..files import FileLock, disk
from . import faults

_TIMES_FREE = 2  # the new file is written twice before the old one goes


def vacuum(path: str) -> tuple[int, int]:
    """Write the file anew, so that from then on it can hand back what is free; its size in bytes before and after.

    Raises StoreError while any program has it open, and when the disk hasn't enough room.
    """
    lock = FileLock(f"{path}-lock")
    lock.acquire()
    try:
        found = disk(path)
        needed = _TIMES_FREE * (found["file_bytes"] + found["wal_bytes"])
        if found["free_disk_bytes"] < needed:
            raise StoreError(
                f"to write {path} anew takes {needed // 2**20 + 1} MiB of free disk, and there are "
                f"{found['free_disk_bytes'] // 2**20}",
                hint="make room, or copy it to another disk with edgeq db copy",
            )
        # Where else its temporary file goes may be in memory.
        os.environ["SQLITE_TMPDIR"] = os.path.dirname(os.path.abspath(path))
        try:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
                for text in (
                    "PRAGMA locking_mode=EXCLUSIVE",
                    "BEGIN EXCLUSIVE",
                    "COMMIT",
                    "PRAGMA synchronous=FULL",
                    "PRAGMA auto_vacuum=INCREMENTAL",
                    "VACUUM",
                    "PRAGMA wal_checkpoint(TRUNCATE)",
                ):
                    connection.execute(text).fetchall()
        except sqlite3.OperationalError as error:
            if faults.code(error) == sqlite3.SQLITE_BUSY:
                raise StoreError(f"{path} is in use", hint="stop edgeq and all other programs on it first") from None
            raise faults.refusal(error, path) from error
        return found["file_bytes"], disk(path)["file_bytes"]
    finally:
        lock.release()
