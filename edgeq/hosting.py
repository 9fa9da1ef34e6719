"""What the programs that run for long have in common: `edgeq run` and `edgeq work`."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

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
    with _glibc() as library:
        library.mallopt(_M_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Give back to the system what only the start needed: 0.4 MiB."""
    with _glibc() as library:
        library.malloc_trim(0)


@contextlib.contextmanager
def _glibc() -> Iterator[ctypes.CDLL]:
    with contextlib.suppress(AttributeError, OSError):  # not every C library has what it is asked for
        yield ctypes.CDLL(None)
