"""The tables of this version in a file, without a store that is opened on it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable

from ...errors import StoreMissing
from ..files import FileLock
from ..schema import applied, current, known, migrate
from . import faults


def upgrade(path: str, before: Callable[[], None]) -> tuple[str, str]:
    """Bring the file at `path` up to date; its last migration then and now, the same if there was nothing to do, and
    "" for none. `before` is called before it is changed.

    Raises StoreMissing, StoreError: an appliance runs on it, a newer version wrote it, it can't be written.
    """
    if not os.path.exists(path):
        raise StoreMissing(f"there is no database at {path}", hint="start edgeq once, or give its configuration, -c")
    lock = FileLock(f"{path}-lock")
    lock.acquire()
    try:
        if current(path):
            return known()[-1], known()[-1]
        with contextlib.closing(sqlite3.connect(path)) as connection:
            done = applied(connection)
        if done:
            before()
        migrate(path, may_change=True)
    except sqlite3.Error as error:
        raise faults.refusal(error, path) from error
    finally:
        lock.release()
    return (done[-1] if done else ""), known()[-1]
