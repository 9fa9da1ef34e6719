"""huey on SQLite, with the same synchronisation as edgeq's: its `fsync=True` is `PRAGMA synchronous=2`."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from huey import SqliteHuey
from huey.consumer import Worker

from . import HOW, Side


class Huey(Side):
    """huey's own worker in this thread, which takes one job at a time. It dispatches jobs one by one only, and as it
    is slow at that, a fifth of what is asked for."""

    name = "huey"

    def __init__(self, folder: Path) -> None:
        logging.getLogger("huey").setLevel(logging.ERROR)
        self._huey = SqliteHuey(filename=str(folder / "huey.db"), fsync=True)
        assert self._huey.storage.conn.execute("PRAGMA synchronous").fetchone() == (2,)
        self._task = self._huey.task()(nothing)

    def dispatch(self, count: int) -> None:
        """See Side."""
        for _ in range(count):
            self._task(**HOW)

    def dispatch_many(self, count: int) -> int:
        """See Side."""
        self.dispatch(count // 5)
        return count // 5

    def run(self, count: int) -> float:
        """See Side."""
        began = time.perf_counter()
        worker = Worker(self._huey, threading.Event(), 0.1, 10.0, 1.15)
        while len(self._huey):
            for _ in range(20):
                worker.loop()
        return time.perf_counter() - began


def nothing(number: int, name: str) -> None:
    """What there is to do."""
