"""A database where there is none yet, or with the tables of this version, for programs beside the appliance."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..errors import StoreError
from .files import MAKING_SECONDS, FileLock, Held
from .schema import current, migrate

_LOOK_SECONDS = 0.05


def need_folder(path: str) -> None:
    """Raises StoreError when the folder of the database at `path` isn't there."""
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise StoreError(f"the folder {folder} doesn't exist", hint="make it, or change store.url")


def ensure(path: str) -> None:
    """Make the database at `path`, or bring its tables up to date. An appliance that holds the file does that itself:
    its tables are waited for, up to MAKING_SECONDS.

    Raises StoreError: no folder, no rights, tables of a newer version, an appliance of an older version that runs;
    StoreUnavailable while the disk is full; sqlite3.Error when it isn't a database.
    """
    need_folder(path)
    if os.path.exists(path) and current(path):
        return
    lock = FileLock(f"{path}-lock")
    for _ in range(round(MAKING_SECONDS / _LOOK_SECONDS)):
        try:
            lock.acquire(to_make=True)
        except Held:
            time.sleep(_LOOK_SECONDS)
            if os.path.exists(path) and current(path):
                return
        else:
            try:
                migrate(path, may_change=True)
            finally:
                lock.release()
            return
    raise StoreError(
        f"{path} has no tables of this version yet, and an edgeq of another version runs on it",
        hint="start it anew with this version",
    )
