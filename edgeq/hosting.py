"""What the programs that run for long have in common: `edgeq run` and `edgeq work`."""

from __future__ import annotations

import contextlib
import ctypes
import sys

from .clock import Clock
from .config.load import sqlite_path
from .config.schema import LoadedConfig
from .errors import EdgeqError
from .store.sqlite import SqliteStore
from .telemetry.metrics import Metrics

GIVE_UP_SECONDS = 1.0
"""What parts have to end in when nothing can be stored any more."""
_SWITCH_SECONDS = 0.0005
_M_ARENA_MAX = -8  # malloc.h


def settle_process() -> None:
    """Set up the process for a few threads beside an event loop. To be called before there are any.

    Python lets a waiting thread have its turn every 5 ms by default; a commit needs several turns. And glibc gives each
    thread a heap of its own, which costs memory (0.7 MiB when idle) and gains nothing where Python's lock is held.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    with contextlib.suppress(AttributeError, OSError):  # not every C library has it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def make_store(loaded: LoadedConfig, metrics: Metrics, clock: Clock, *, exclusive: bool) -> SqliteStore:
    """The store of a configuration, not open yet, and made if it isn't there. See SqliteStore for `exclusive`."""
    config = loaded.config.store
    return SqliteStore(
        sqlite_path(config.url),
        metrics=metrics,
        clock=clock,
        durability=config.durability,
        commit_interval_seconds=float(config.commit_interval),
        exclusive=exclusive,
        make=True,
    )


def fault(store: SqliteStore) -> EdgeqError | None:
    """Why nothing can be stored any more before the program is started anew; None: there is no such reason."""
    if store.gone:
        return EdgeqError(
            f"{store.path} was removed or replaced while edgeq ran",
            hint="systemd starts edgeq again by itself, on the file that is there then",
        )
    if store.damaged:
        return EdgeqError(
            f"{store.path} is damaged; it is put aside at the next start of edgeq run",
            hint="systemd starts edgeq again by itself",
        )
    return None
