"""`edgeq`, for which time passes so many times as fast: `python scripts/benches/hurried 40 run -c edgeq.yaml`.

All its clocks go faster, and so does whatever waits for a time: timers, time limits, ages. What takes time by itself
(commits, the network, other processes) takes as long as ever.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from pathlib import Path

sys.path[0] = str(Path.cwd())

from edgeq.cli.main import main  # noqa: E402
from edgeq.clock import Clock  # noqa: E402

FACTOR = float(sys.argv[1])
_BEGAN = time.time_ns() // 1000


class _Selector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else timeout / FACTOR)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_Selector())

    def time(self) -> float:
        return super().time() * FACTOR


class _Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _Loop


Clock.now = lambda self: _BEGAN + round((time.time_ns() // 1000 - _BEGAN) * FACTOR)  # type: ignore[method-assign]
Clock.monotonic = lambda self: time.monotonic() * FACTOR  # type: ignore[method-assign]
asyncio.set_event_loop_policy(_Policy())
main(sys.argv[2:])
