"""How long one connection waits for another one that writes."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from .faults import code

T = TypeVar("T")

BUSY_SECONDS = 5.0
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.0005, 0.005


def patiently(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, which is made again for up to BUSY_SECONDS while another connection writes.

    SQLite's own way is to sleep for longer each time, up to 100 ms. Beside programs that write all the time, that is to
    meet the moment between two of their commits once in minutes.
    """
    waited = 0.0
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if code(error) != sqlite3.SQLITE_BUSY or waited >= BUSY_SECONDS:
                raise
        pause = random.uniform(0.5, 1.5) * min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS + waited / 50)  # noqa: S311
        time.sleep(pause)
        waited += pause
