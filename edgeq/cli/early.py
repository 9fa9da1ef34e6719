"""Signals that come while a program that runs for long still starts: before there is an event loop to heed them.

Nothing has begun then that would have to be finished. So SIGTERM ends the program at once, as well as if it had run;
SIGHUP is noted for later, as by itself it would end the program. Costs no imports: those are what takes time.
"""

from __future__ import annotations

import os
import signal
from typing import Any

_hung_up: list[int] = []


def heed() -> None:
    """Heed signals from now on, until somebody else does. To be called in the main thread."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _note)


def hung_up() -> bool:
    """Whether SIGHUP has come meanwhile."""
    return bool(_hung_up)


def _end(number: int, frame: Any) -> None:
    os._exit(0)  # SystemExit would be taken for an error of the module that is being imported


def _note(number: int, frame: Any) -> None:
    _hung_up.append(number)
